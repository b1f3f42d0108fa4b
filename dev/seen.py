"""A watch of one kind in a namespace, whose events are seen the moment they come."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from hone.core.observed import Object
from hone.runtime.client import path

LINE_BYTES = 2**20
"""The longest event that can be read."""
WATCH_SECONDS = 86400
"""How long a watch lasts. By itself, an API server ends each after half an hour to an hour, in the middle of a run."""


class Watch:
    """Calls a function with the object of each event while the block runs; the first are those that exist.

    Args:
        configuration: how to reach the API server.
        api_version: such as `batch/v1`.
        kind: such as `Job`.
        namespace: the namespace.
        saw: called with each object.

    Raises:
        Exception: at the end of the block, what ended the watch before.
    """

    def __init__(
        self,
        configuration: Configuration,
        api_version: str,
        kind: str,
        namespace: str,
        saw: Callable[[Object], Awaitable[None] | None],
    ) -> None:
        self._configuration, self._saw = configuration, saw
        self._url = f"{configuration.host}{path(api_version, kind, namespace)}?watch=1&timeoutSeconds={WATCH_SECONDS}"
        self._established = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._read())
        established = asyncio.create_task(self._established.wait())
        await asyncio.wait({self._task, established}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            established.cancel()
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._task.done()
        self._task.cancel()
        (result,) = await asyncio.gather(self._task, return_exceptions=True)
        if ended and error is None:
            raise result if isinstance(result, BaseException) else RuntimeError(f"{self._url} ended")

    async def _read(self) -> None:
        connector = aiohttp.TCPConnector(ssl=RESTClientObject(self._configuration).ssl_context)
        timeout = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=LINE_BYTES) as session,
            session.get(self._url, raise_for_status=True) as response,
        ):
            self._established.set()
            async for line in response.content:
                called = self._saw(json.loads(line)["object"])
                if inspect.isawaitable(called):
                    await called
