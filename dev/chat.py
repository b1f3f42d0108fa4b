"""Ask a served model a question, over the OpenAI API, or a text for its class; with the standard library alone."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dev.kube import Kube, Object

# No proxy stands between this machine and itself.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Endpoint(NamedTuple):
    """A server, and a key of it; empty: it is open."""

    url: str
    key: str = ""


@contextmanager
def endpoint(kube: "Kube", deployment: "Object") -> Iterator[Endpoint]:
    """The server of a ModelDeployment, as reached from this machine while the block runs, with the first of its keys.

    Raises:
        KubeError: it cannot be reached, or there is no Secret with its keys.
    """
    status = deployment["status"]
    # http://<service>.<namespace>.svc
    service = status["url"].removeprefix("http://").split(".")[0]
    name, key = status["access"].get("secretName"), ""
    if name:
        secret = json.loads(kube.run("get", "secret", name, "-o", "json"))
        key = base64.b64decode(min(secret["data"].items())[1]).decode()
    with kube.port_forward(f"service/{service}", 80) as url:
        yield Endpoint(url, key)


def call(server: Endpoint, path: str, body: dict[str, Any] | None = None, seconds: float = 120) -> Any:
    """The JSON that the server answers; a POST where there is a body.

    Raises:
        RuntimeError: the server refused; says why in its words.
        OSError: it cannot be reached.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {server.key}"} if server.key else {})}
    request = urllib.request.Request(server.url + path, data, headers)
    try:
        with _OPENER.open(request, timeout=seconds) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{path}: {error.code} {error.read().decode(errors='replace')[:500]}") from error


def models(server: Endpoint) -> list[str]:
    """Names of the models that the server answers as."""
    return [entry["id"] for entry in call(server, "/v1/models")["data"]]


def ask(server: Endpoint, model: str, question: str, max_tokens: int = 16) -> str:
    """The model's answer to one message, decoded greedily."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    return str(call(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"]).strip()


def complete(server: Endpoint, model: str, prompt: str, max_tokens: int) -> str:
    """What the model writes after `prompt`, which is taken as it is: no template, no token put before it."""
    body = {
        "model": model,
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": max_tokens,
        "add_special_tokens": False,
    }
    return str(call(server, "/v1/completions", body)["choices"][0]["text"])


def classify(server: Endpoint, model: str, texts: list[str]) -> list[dict[str, Any]]:
    """Of each text its class as `label`, and as `probs` the probabilities of all classes in their order."""
    answers: list[dict[str, Any]] = call(server, "/classify", {"model": model, "input": texts})["data"]
    return answers


def score(server: Endpoint, model: str, messages: list[dict[str, str]]) -> float:
    """The score that a reward model gives a conversation, which ends with the answer that is scored."""
    (answer,) = call(server, "/classify", {"model": model, "messages": messages})["data"]
    (value,) = answer["probs"]
    return float(value)
