"""Prompts with right answers, and what a server answers to them, at temperature 0."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from typing import Any

from hone_trainer.protocol.errors import BadInput, clip

AT_ONCE = 4
"""Prompts that are asked at the same time; each goes to both servers."""
REQUEST_SECONDS = 300
PATIENCE_SECONDS = 30.0
"""How long a question waits for a server that limits how often a key may ask."""
MOST_BYTES = 4 << 20
"""Of a server's reply."""
TOO_MANY = 429
BASE_SUFFIX = "-base"
"""Of the name under which the server of an adapter has the base model."""
_SHAPES = "messages that end with the assistant's, prompt and completion, or, for classes, text and label"


@dataclass(frozen=True)
class Question:
    """A prompt and its right answer.

    Attributes:
        messages: the conversation so far; of a text to classify, one message.
        reference: the right answer, or class.
    """

    messages: list[dict[str, Any]]
    reference: str


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        text: the answer, or the class; None: it answered with an error.
        seconds: how long it took.
        ended: whether the answer ended by itself, not by the limit of its tokens.
        error: what the server said instead.
    """

    text: str | None
    seconds: float
    ended: bool = True
    error: str = ""


@dataclass(frozen=True)
class Endpoint:
    """A server.

    Attributes:
        url: its address.
        model: the model's name.
        api: Chat or Classify.
        max_tokens: most tokens of an answer.
        key: what it answers for; None: anybody.
    """

    url: str
    model: str
    api: str
    max_tokens: int
    key: str | None = None

    def by_its_name(self) -> "Endpoint":
        """The same server, asked by the name that it gives its model: an edit may have changed that of the spec."""
        request = urllib.request.Request(self.url.rstrip("/") + "/v1/models", headers=self._headers())
        try:
            with _opener().open(request, timeout=REQUEST_SECONDS) as response:
                names = [str(each["id"]) for each in json.loads(response.read(MOST_BYTES))["data"]]
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            return self  # What it does not answer now, it does not answer later, and that is told.
        tuned = [name for name in names if not name.endswith(BASE_SUFFIX)]
        return self if self.model in names or len(tuned) != 1 else replace(self, model=tuned[0])

    def ask(self, question: Question) -> Reply:
        """The answer; a server that cannot be reached gives one without a text."""
        until = time.monotonic() + PATIENCE_SECONDS
        reply, wait = self._once(question)
        while wait and time.monotonic() + wait < until:
            time.sleep(wait)
            reply, wait = self._once(question)
        return reply

    def _once(self, question: Question) -> tuple[Reply, float]:
        """The answer, and seconds after which the server may be asked again; 0 if that is no matter of time."""
        path, body = self.request(question)
        began, wait = time.monotonic(), 0.0
        try:
            with self.open(path, body) as response:
                answer = json.loads(response.read(MOST_BYTES))
            text, ended = self._text(answer)
            return Reply(text, time.monotonic() - began, ended), 0.0
        except urllib.error.HTTPError as error:
            wait = _again(error) if error.code == TOO_MANY else 0.0
            words = f"HTTP {error.code}: {error.read(1000).decode(errors='replace')}"
        except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
            words = f"{type(error).__name__}: {error}"
        return Reply(None, time.monotonic() - began, False, clip(words, 200)), wait

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def open(self, path: str, body: dict[str, Any]) -> HTTPResponse:
        """The server's response, which the caller closes.

        Raises:
            OSError, HTTPException: there is none, or it is an error.
        """
        headers = {"Content-Type": "application/json", **self._headers()}
        request = urllib.request.Request(self.url.rstrip("/") + path, json.dumps(body).encode(), headers)
        response: HTTPResponse = _opener().open(request, timeout=REQUEST_SECONDS)
        return response

    def request(self, question: Question) -> tuple[str, dict[str, Any]]:
        """Path and body of a question."""
        if self.api == "Classify":
            return "/classify", {"model": self.model, "input": question.messages[-1]["content"]}
        parameters = {"messages": question.messages, "temperature": 0, "seed": 0, "max_tokens": self.max_tokens}
        return "/v1/chat/completions", {"model": self.model, **parameters}

    def _text(self, answer: Any) -> tuple[str, bool]:
        if self.api == "Classify":
            return str(answer["data"][0]["label"]), True
        choice = answer["choices"][0]
        return str(choice["message"].get("content") or ""), choice.get("finish_reason") != "length"


def _opener() -> urllib.request.OpenerDirector:
    """Without proxies: the servers are in the cluster."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _again(error: urllib.error.HTTPError) -> float:
    """What a server says of when to ask again, in seconds; a second if it says nothing."""
    text = str(error.headers.get("Retry-After") or "")
    return float(text) if text.isdigit() else 1.0


def ask_both(questions: Sequence[Question], stable: Endpoint, candidate: Endpoint) -> list[tuple[Reply, Reply]]:
    """What both answer, in the order of the questions. Which is asked first alternates, so that load and caches are
    the same for both."""

    def one(index: int) -> tuple[Reply, Reply]:
        if index % 2:
            later = candidate.ask(questions[index])
            return stable.ask(questions[index]), later
        return stable.ask(questions[index]), candidate.ask(questions[index])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(len(questions))))


def questions_of(content: bytes, api: str, most: int) -> list[Question]:
    """The questions in a file of JSON lines; of more than `most`, some from all of it.

    Raises:
        BadInput: it has none, or a line is not one.
    """
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not lines:
        raise BadInput(FIELD, "has no rows", "Add rows with a prompt and its right answer.")
    step = max(1.0, len(lines) / most)
    chosen = [lines[int(index * step)] for index in range(min(most, len(lines)))]
    return [_question(number, line, api) for number, line in chosen]


FIELD = "spec.rollout.analysis.dataset"


def _question(number: int, line: bytes, api: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(FIELD, f"line {number} is not JSON: {error}", "Write one JSON object a line.") from error
    question = (_labeled(row) if api == "Classify" else _chat(row)) if isinstance(row, dict) else None
    if question is None:
        raise BadInput(FIELD, f"line {number} has no prompt with its right answer", f"A row has {_SHAPES}.")
    return question


def _labeled(row: dict[str, Any]) -> Question | None:
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str) or not isinstance(label, str):
        return None
    return Question([{"role": "user", "content": text}], label)


def _chat(row: dict[str, Any]) -> Question | None:
    prompt, answer = row.get("prompt"), row.get("completion")
    if isinstance(messages := row.get("messages"), list) and messages and _is_message(messages[-1], "assistant"):
        prompt, answer = messages[:-1], messages[-1]["content"]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(answer, list) and len(answer) == 1 and _is_message(answer[0], "assistant"):
        answer = answer[0]["content"]
    if not isinstance(prompt, list) or not prompt or not isinstance(answer, str):
        return None
    return Question(prompt, answer)


def _is_message(message: Any, role: str) -> bool:
    return isinstance(message, dict) and message.get("role") == role and isinstance(message.get("content"), str)
