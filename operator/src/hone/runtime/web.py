"""The HTTP servers of the process: `/healthz` and `/readyz` on one port, `/metrics` on another.

Anybody in the cluster may connect to them. So metrics are rendered in a thread, at most every few seconds and a tenth
of the time, and sent only as fast as a client reads them. A connection is closed after a while, or when it is the
oldest of too many: a new one is always accepted.
"""

import asyncio
import functools
import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web

from hone.runtime.metrics import Metrics

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_CONNECTIONS = 64
"""Open connections of one port; beyond it, the oldest is closed."""
MAX_SECONDS = 30.0
"""How long a connection may live, whatever happens on it."""
CACHE_SECONDS = 2.0
"""How old the metrics are at least before they are rendered again."""
PAUSES = 10
"""How many times as long as it took to render them they are shown at least."""
CHUNK_BYTES = 64 * 1024
"""How much of the metrics is handed to a connection at a time; what its client does not read takes no more memory."""


class Server:
    """Serves probes and metrics in the running loop; any answer of `/healthz` means that the process is alive.

    Args:
        metrics: what `/metrics` shows.
        ready: whether `/readyz` says yes.
        max_seconds: how long a connection may live.

    Attributes:
        ports: the ports that are listened on, after `start`: of the metrics, of the probes.
    """

    def __init__(self, metrics: Metrics, ready: Callable[[], bool], max_seconds: float = MAX_SECONDS) -> None:
        self._metrics, self._ready, self._max_seconds = metrics, ready, max_seconds
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._rendering = asyncio.Lock()
        self._text, self._due = b"", float("-inf")
        self.ports: tuple[int, ...] = ()

    async def start(self, metrics_port: int, probe_port: int) -> None:
        """Listen on both ports; 0 takes any free one.

        Raises:
            OSError: a port is taken.
        """
        metrics, probes = web.Application(), web.Application()
        metrics.router.add_get("/metrics", self._show_metrics)
        probes.router.add_get("/healthz", self._healthz)
        probes.router.add_get("/readyz", self._readyz)
        for app, port in ((metrics, metrics_port), (probes, probe_port)):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
            await runner.setup()
            self._runners.append(runner)
            accept = functools.partial(self._accept, runner, OrderedDict())
            server = await asyncio.get_running_loop().create_server(accept, port=port)
            self._servers.append(server)
            # Where any free port was taken, IPv4 and IPv6 have different ones.
            shown = min(server.sockets, key=lambda each: each.family)
            self.ports = (*self.ports, shown.getsockname()[1])

    async def stop(self) -> None:
        """Close both ports."""
        for server in self._servers:
            server.close()
        for runner in self._runners:
            await runner.cleanup()

    def _accept(
        self, runner: web.AppRunner, connections: "OrderedDict[web.RequestHandler, asyncio.TimerHandle]"
    ) -> "web.RequestHandler":
        """The protocol of a new connection; of too many, the oldest is closed."""
        assert runner.server is not None, "the runner is set up"
        while len(connections) >= MAX_CONNECTIONS:
            oldest, timer = connections.popitem(last=False)
            timer.cancel()
            oldest.force_close()
        handler = runner.server()

        def end() -> None:
            connections.pop(handler, None)
            handler.force_close()

        connections[handler] = asyncio.get_running_loop().call_later(self._max_seconds, end)
        return handler

    async def _show_metrics(self, request: web.Request) -> web.StreamResponse:
        async with self._rendering:
            began = time.monotonic()
            if began >= self._due:
                self._text = await asyncio.to_thread(self._metrics.text)
                ended = time.monotonic()
                self._due = ended + max(CACHE_SECONDS, PAUSES * (ended - began))
            text = memoryview(self._text)
        response = web.StreamResponse(headers={"Content-Type": METRICS_TYPE, "Content-Length": str(len(text))})
        await response.prepare(request)
        for start in range(0, len(text), CHUNK_BYTES):
            await response.write(text[start : start + CHUNK_BYTES])
        await response.write_eof()
        return response

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the watches are not established yet\n")
