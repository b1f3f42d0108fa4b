"""A vLLM server next to the ranks of a pod: it writes the answers that a run learns from, with the run's own adapter.

Before each step the adapter alone is handed over, as files in a directory that both see. Each one has a path of its
own, also where a step is repeated, as after the probe: vLLM keeps what it has cached of prompts for a path that it has
seen.
"""

import hashlib
import json
import logging
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.protocol.errors import MAX_MESSAGE, clip

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AT_ONCE = 128
"""Requests that are under way at the same time; vLLM makes its batches of them."""
_TRIES = 3
"""How often requests are sent that no answer came to, without any answer in between."""
_POLL_SECONDS = 0.5
_REQUEST_SECONDS = 3600
_NOT_FOUND, _SERVER_ERROR = 404, 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        max_tokens: most tokens of an answer.
        temperature: what logits are divided by.
        stops: tokens that end an answer, and are its last ones.
    """

    max_tokens: int
    temperature: float
    stops: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """An answer: its tokens, and the log-probability of each at the temperature that it was drawn at."""

    ids: list[int]
    log_probabilities: list[float]


class AnswerServer:
    """A client of such a server. If it dies, it is waited for, gets the adapter again, and then what is unanswered.

    Args:
        url: its address, such as http://127.0.0.1:8000.
        directory: where adapters are handed over, at the same path for both.
        wait_seconds: for how long it may be gone, and may take to start.
        moves: called with each answer, and with each try to reach a server that is gone.
    """

    def __init__(
        self, url: str, directory: Path, wait_seconds: float, moves: Callable[[], None] = lambda: None
    ) -> None:
        self._url = url.rstrip("/")
        self._directory = directory
        self._wait_seconds = wait_seconds
        self._moves = moves
        # A proxy of the environment is not for this pod's own address.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._adapter: Path | None = None

    def write_adapter(self, model: "PreTrainedModel", step: int) -> None:
        """Write a model's adapter where `load` finds it; one rank of a pod does.

        Args:
            model: with its adapter.
            step: optimizer steps that it has learned.
        """
        final = self._directory / f"step-{step}-{secrets.token_hex(4)}"
        partial = final.with_name("partial")
        for old in (*self._directory.glob("step-*"), *self._directory.glob(partial.name)):
            shutil.rmtree(old)
        model.save_pretrained(partial)
        partial.rename(final)

    def load(self, step: int) -> None:
        """Let the server answer with the adapter of a step, as soon as it is up; the same twice does no harm.

        Raises:
            ConnectionError: it is gone for too long.
            ValueError: no adapter of this step has been written.
        """
        (written,) = self._directory.glob(f"step-{step}-*")
        previous, self._adapter = self._adapter, written
        self._load()
        if previous and previous != self._adapter:
            self._post("/v1/unload_lora_adapter", {"lora_name": previous.name}, missing_ok=True)

    def answer(self, prompts: Sequence[list[int]], sampling: Sampling, seed: str) -> list[Answer]:
        """An answer to each prompt, drawn with the adapter that was loaded last.

        Args:
            prompts: their token ids.
            sampling: how answers are drawn.
            seed: decides what is drawn, together with the index of a prompt; no other call has it.

        Raises:
            ConnectionError: the server is gone for too long, or again and again.
            RuntimeError: it refuses a request.
        """
        answers: dict[int, Answer] = {}
        left, tries = list(range(len(prompts))), 0
        with ThreadPoolExecutor(min(_AT_ONCE, len(prompts))) as pool:
            while left:
                replies = pool.map(lambda index: self._ask(prompts[index], sampling, f"{seed}/{index}"), left)
                for index, answer in zip(left, replies, strict=True):
                    self._moves()
                    answers |= {index: answer} if answer else {}
                before, left = len(left), [index for index in left if index not in answers]
                tries = 0 if len(left) < before else tries + 1
                if tries >= _TRIES:
                    raise ConnectionError(f"the server that writes answers answers none of {len(left)} requests")
                if left:
                    logger.warning("the server that writes answers was lost", extra={"unanswered": len(left)})
                    self._load()
        return [answers[index] for index in range(len(prompts))]

    def _load(self) -> None:
        if self._adapter is None:
            raise ValueError("no adapter has been handed over")
        adapter = {"lora_name": self._adapter.name, "lora_path": str(self._adapter), "load_inplace": True}
        deadline = time.monotonic() + self._wait_seconds
        while self._post("/v1/load_lora_adapter", adapter) is None:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"the server that writes answers, {self._url}, is not up after {self._wait_seconds:.0f} s; "
                    "`kubectl logs` of this pod's container vllm shows why"
                )
            self._moves()
            time.sleep(_POLL_SECONDS)

    def _ask(self, prompt: list[int], sampling: Sampling, seed: str) -> Answer | None:
        """The answer to a prompt; None where the server is gone, or has been started again."""
        if self._adapter is None:
            raise ValueError("no adapter has been handed over")
        request = {
            "model": self._adapter.name,
            "prompt": prompt,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            # The model's own defaults would come in for what is not said.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": list(sampling.stops),
            "seed": int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4]),
            "logprobs": 0,
            "return_token_ids": True,
        }
        reply = self._post("/v1/completions", request, missing_ok=True)
        if reply is None:
            return None
        (choice,) = json.loads(reply)["choices"]
        return Answer(choice["token_ids"], choice["logprobs"]["token_logprobs"])

    def _post(self, path: str, body: dict[str, Any], *, missing_ok: bool = False) -> bytes | None:
        """What the server replies; None where it is gone or about to end, or with `missing_ok` lacks the adapter."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=_REQUEST_SECONDS) as response:
                reply: bytes = response.read()
                return reply
        except urllib.error.HTTPError as error:
            if missing_ok and error.code == _NOT_FOUND:
                return None
            words = error.read().decode(errors="replace")
            if error.code >= _SERVER_ERROR:
                # So it ends: first its engine, then its API, and with that the container.
                logger.warning("the server that writes answers failed", extra={"words": clip(words, MAX_MESSAGE)})
                return None
            raise RuntimeError(clip(f"the server that writes answers refuses {path}: {words}", MAX_MESSAGE)) from error
        except (OSError, HTTPException):
            return None
