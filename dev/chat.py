"""Ask a served model a question, over the OpenAI API, or a text for its class; with the standard library alone."""

import json
import urllib.error
import urllib.request
from typing import Any

# No proxy stands between this machine and itself.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url: str, path: str, body: dict[str, Any] | None = None, seconds: float = 120) -> Any:
    """The JSON that the server answers; a POST where there is a body.

    Raises:
        RuntimeError: the server refused; says why in its words.
        OSError: it cannot be reached.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with _OPENER.open(request, timeout=seconds) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{path}: {error.code} {error.read().decode(errors='replace')[:500]}") from error


def models(url: str) -> list[str]:
    """Names of the models that the server answers as."""
    return [entry["id"] for entry in call(url, "/v1/models")["data"]]


def ask(url: str, model: str, question: str, max_tokens: int = 16) -> str:
    """The model's answer to one message, decoded greedily."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    return str(call(url, "/v1/chat/completions", body)["choices"][0]["message"]["content"]).strip()


def complete(url: str, model: str, prompt: str, max_tokens: int) -> str:
    """What the model writes after `prompt`, which is taken as it is: no template, no token put before it."""
    body = {
        "model": model,
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": max_tokens,
        "add_special_tokens": False,
    }
    return str(call(url, "/v1/completions", body)["choices"][0]["text"])


def classify(url: str, model: str, texts: list[str]) -> list[dict[str, Any]]:
    """Of each text its class as `label`, and as `probs` the probabilities of all classes in their order."""
    answers: list[dict[str, Any]] = call(url, "/classify", {"model": model, "input": texts})["data"]
    return answers


def score(url: str, model: str, messages: list[dict[str, str]]) -> float:
    """The score that a reward model gives a conversation, which ends with the answer that is scored."""
    (answer,) = call(url, "/classify", {"model": model, "messages": messages})["data"]
    (value,) = answer["probs"]
    return float(value)
