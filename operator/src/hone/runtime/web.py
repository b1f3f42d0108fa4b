"""The HTTP servers of the process: `/healthz` and `/readyz` on one port, `/metrics` on another.

Anybody in the cluster may connect to them. So metrics are rendered in a thread, at most every few seconds and a tenth
of the time, and sent only as fast as a client reads them. Connections are accepted in their order and only so many a
second, or those who connect without pause would take the event loop from the reconciles. One is closed when it was
answered, after a while, or when it is the oldest of too many.
"""

import asyncio
import functools
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web

from hone.runtime.metrics import Metrics

log = logging.getLogger(__name__)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TURN_SECONDS = 0.02
METRICS_PER_TURN, PROBES_PER_TURN = 1, 20
"""Connections that a port accepts at most in a turn. Probes cost next to nothing, and must not wait behind a crowd."""
DEFER_SECONDS = 5
"""How long the kernel holds a connection on which nothing is sent before we are to accept it."""
BACKLOG = 4096
"""Connections that may wait to be accepted."""
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
        self._listening: list[tuple[socket.socket, asyncio.Task[None]]] = []
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
        for app, port, per_turn in ((metrics, metrics_port, METRICS_PER_TURN), (probes, probe_port, PROBES_PER_TURN)):
            app.on_response_prepare.append(_close_after)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
            await runner.setup()
            self._runners.append(runner)
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            listener = socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
            listener.setblocking(False)
            if hasattr(socket, "TCP_DEFER_ACCEPT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
            accept = functools.partial(self._accept, runner, OrderedDict())
            task = asyncio.get_running_loop().create_task(_listen(listener, accept, per_turn), name=f"port {port}")
            self._listening.append((listener, task))
            self.ports = (*self.ports, listener.getsockname()[1])

    async def stop(self) -> None:
        """Close both ports."""
        for listener, task in self._listening:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            listener.close()
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


async def _listen(listener: socket.socket, accept: Callable[[], asyncio.Protocol], per_turn: int) -> None:
    """Accept connections in their order, and only so many a second."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            for _ in range(per_turn):
                connection, _ = await loop.sock_accept(listener)
                await loop.connect_accepted_socket(accept, connection)
        except OSError as error:
            log.debug("a connection was lost before it was accepted: %s", error)
        await asyncio.sleep(TURN_SECONDS)


async def _close_after(_: web.Request, response: web.StreamResponse) -> None:
    """Close the connection after its first answer: who wants more waits for another turn."""
    response.force_close()
