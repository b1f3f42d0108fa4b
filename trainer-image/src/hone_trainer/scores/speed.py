"""How fast a server answers, a few prompts at a time: the time to the first token, and tokens per second."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

import numpy as np

from hone.contract.analysis import Performance
from hone_trainer.scores.questions import AT_ONCE, REQUEST_SECONDS, Endpoint, Question

MOST, LEAST = 32, 8
"""Prompts that are sent; answers without which nothing is reported."""
SECONDS = 120.0
"""After this no more prompts are sent."""
MOST_BYTES = 1 << 20
"""Of a line of an answer."""


@dataclass(frozen=True)
class _Stream:
    """An answer: when it was requested, when its first token came and when it ended, and how many tokens it has."""

    began: float
    first: float
    ended: float
    tokens: int


def measure(endpoint: Endpoint, questions: Sequence[Question]) -> Performance | None:
    """How fast a server of the API Chat is; None: it has another, or answered too few of the prompts."""
    if endpoint.api != "Chat":
        return None
    prompts, until = questions[:MOST], time.monotonic() + SECONDS
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda question: _stream(endpoint, question, until), prompts))
    streams = [stream for stream in results if stream is not None]
    if len(streams) < min(LEAST, len(prompts)):
        return None
    first = [stream.first - stream.began for stream in streams]
    took = max(stream.ended for stream in streams) - min(stream.began for stream in streams)
    return Performance(
        ttft_p50=round(float(np.percentile(first, 50)), 4),
        ttft_p95=round(float(np.percentile(first, 95)), 4),
        tokens_per_second=round(sum(stream.tokens for stream in streams) / took, 2),
        concurrency=min(AT_ONCE, len(prompts)),
        requests=len(streams),
    )


def _stream(endpoint: Endpoint, question: Question, until: float) -> _Stream | None:
    """A prompt that is answered token by token; None: it is too late, or the server did not answer."""
    began, first, tokens = time.monotonic(), None, 0
    if began > until:
        return None
    path, body = endpoint.request(question)
    # The server has answered the same prompt already: with a salt, its prefix cache does not know it.
    body |= {"stream": True, "stream_options": {"include_usage": True}, "cache_salt": secrets.token_hex(16)}
    try:
        with endpoint.open(path, body) as response:
            for event in _events(response):
                if time.monotonic() > began + REQUEST_SECONDS:
                    return None
                if first is None and _has_token(event):
                    first = time.monotonic()
                tokens = int((event.get("usage") or {}).get("completion_tokens", tokens))
    except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return None if first is None or tokens <= 0 else _Stream(began, first, time.monotonic(), tokens)


def _events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    """The chunks of an answer."""
    while line := response.readline(MOST_BYTES):
        kind, _, data = line.partition(b":")
        if kind == b"data" and data.strip() != b"[DONE]":
            yield json.loads(data)


def _has_token(event: dict[str, Any]) -> bool:
    """Whether a chunk has more than the role of who answers."""
    return any(value for each in event["choices"] for name, value in each["delta"].items() if name != "role")
