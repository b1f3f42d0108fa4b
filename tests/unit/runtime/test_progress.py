"""The progress reader against pods that answer well, badly, slowly, endlessly, or as somebody else."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from hone.contract.progress import Progress
from hone.core.kind import ProgressTarget
from hone.runtime.progress import MAX_BYTES, ProgressReader

TARGET = ProgressTarget(pod_uid="pod-uid", pod_ip="127.0.0.1")
GOOD = Progress(pod_uid="pod-uid", stage="Training", step=5, total_steps=50, loss=1.5, observed_time=1e9)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler, **reader: Any) -> AsyncIterator[ProgressReader]:
    """A reader for a pod whose `/progress` is answered by `handler`."""
    app = web.Application()
    app.router.add_get("/progress", handler)
    app.router.add_get("/elsewhere", body(GOOD.to_dict()))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    progress_reader = ProgressReader(port=runner.addresses[0][1], **reader)
    try:
        yield progress_reader
    finally:
        await progress_reader.close()
        await runner.cleanup()


def body(value: Any, status: int = 200) -> Handler:
    """Answers with a value as JSON, or with text as it is."""
    text = value if isinstance(value, str) else json.dumps(value)

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    return handle


async def test_a_good_answer_is_read() -> None:
    async with answering(body(GOOD.to_dict())) as reader:
        reading = await reader.read(TARGET)
    assert reading.progress == GOOD and reading.error is None


async def test_unknown_keys_of_a_newer_trainer_are_ignored() -> None:
    async with answering(body({**GOOD.to_dict(), "temperature": 80})) as reader:
        assert (await reader.read(TARGET)).progress == GOOD


async def test_a_loss_that_is_not_a_number_is_left_out() -> None:
    async with answering(body({**GOOD.to_dict(), "loss": math.nan, "evalLoss": math.inf})) as reader:
        progress = (await reader.read(TARGET)).progress
    assert progress and progress.loss is None and progress.step == 5


REFUSED: dict[str, tuple[Handler, str]] = {
    "not rank 0": (body("", status=404), "HTTP 404"),
    "no JSON": (body("hello"), "not a valid progress report"),
    "a list": (body([1, 2]), "not a valid progress report"),
    "deep nesting": (body("[" * 8000), "not a valid progress report"),
    "a wrong type": (body({**GOOD.to_dict(), "step": "many"}), "not a valid progress report"),
    "another pod": (body({**GOOD.to_dict(), "podUid": "somebody"}), "another pod"),
    "a version from the future": (body({**GOOD.to_dict(), "version": 9}), "version 9"),
    "a step below zero": (body({**GOOD.to_dict(), "step": -1}), "a count that is out of range"),
    "a step beyond belief": (body({**GOOD.to_dict(), "totalSteps": 10**30}), "a count that is out of range"),
    "restarts beyond belief": (body({**GOOD.to_dict(), "restarts": 10**30}), "a count that is out of range"),
    "changes that are no text": (body({**GOOD.to_dict(), "changes": [1]}), "not a valid progress report"),
    "a speed below zero": (body({**GOOD.to_dict(), "tokensPerSecond": -1}), "a number that is out of range"),
    "too long": (body({**GOOD.to_dict(), "stage": "x" * MAX_BYTES}), f"longer than {MAX_BYTES} bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_bad_answer_is_an_error_in_words(case: str) -> None:
    handler, words = REFUSED[case]
    async with answering(handler) as reader:
        reading = await reader.read(TARGET)
    assert reading.progress is None
    assert reading.error and words in reading.error and len(reading.error) <= 256
    assert reading.pod_uid == "pod-uid"


async def test_a_redirect_is_not_followed() -> None:
    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")

    async with answering(redirect) as reader:
        reading = await reader.read(TARGET)
    assert reading.error == "the pod answered HTTP 302"


async def test_an_endless_answer_is_cut_off() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    async with answering(endless, timeout=20) as reader:
        reading = await reader.read(TARGET)
    assert reading.error and "longer than" in reading.error
    assert sent < 64 * 1024 * 1024


async def test_a_slow_answer_is_given_up() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:  # Each byte comes in time; the whole answer never does.
            await response.write(b" ")
            await asyncio.sleep(0.02)

    async with answering(drip, timeout=0.3) as reader:
        reading = await reader.read(TARGET)
    assert reading.error == "no answer in time"


async def test_nobody_listening_is_an_error_in_words() -> None:
    async with answering(body("")) as reader:
        reading = await reader.read(ProgressTarget("pod-uid", "127.0.0.77"))
    assert reading.error == "no answer: Connection refused"
