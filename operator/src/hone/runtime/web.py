"""The HTTP servers of the process: `/healthz` and `/readyz` on one port, `/metrics` on another.

They run in a thread with an event loop of its own, so that no load of the operator's loop delays a probe; `/healthz`
watches that loop instead, and fails when it has stood still for long.

Anybody in the cluster may connect to them. So metrics are rendered at most every few seconds and a tenth of the time,
and sent only as fast as a client reads them. Connections are accepted in their order and only so many a second, or
those who connect without pause would take the CPU from the reconciles; one without a whole request gets no turn. One
is closed when it was answered, after a while, or when it is the oldest of too many.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from aiohttp import web

from hone.runtime.metrics import Metrics

log = logging.getLogger(__name__)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TURN_SECONDS = 0.02
METRICS_PER_TURN, PROBES_PER_TURN = 1, 20
"""Requests that a port takes at most in a turn. Probes cost next to nothing, and must not wait behind a crowd."""
CLOSED_PER_TURN = 1000
"""Connections without a whole request that a port closes at most in a turn."""
REQUEST_BYTES = 4096
"""How long a request of a probe or of Prometheus may be. They come in one piece."""
DEFER_SECONDS = 1
"""How long the kernel holds a connection on which nothing is sent before we are to accept it. Until then it counts
against the backlog, beyond which the kernel drops who connects: a probe tries again after one second."""
BACKLOG = 4096
"""Connections that may wait to be accepted."""
MAX_CONNECTIONS = 64
"""Open connections of one port; beyond it, the oldest is closed."""
MAX_SECONDS = 30.0
"""How long a connection may live, whatever happens on it."""
BEAT_SECONDS = 0.5
"""How often the operator's loop shows that it runs."""
STUCK_SECONDS = 30.0
"""How long it may stand still; no load comes near."""
CACHE_SECONDS = 2.0
"""How old the metrics are at least before they are rendered again."""
PAUSES = 10
"""How many times as long as it took to render them they are shown at least."""
CHUNK_BYTES = 64 * 1024
"""How much of the metrics is handed to a connection at a time; what its client does not read takes no more memory."""


class Server:
    """Serves probes and metrics in a thread. `/healthz` says no once the loop that started it stands still.

    Args:
        metrics: what `/metrics` shows.
        ready: whether `/readyz` says yes; called in the thread.
        max_seconds: how long a connection may live.
        stuck_seconds: how long the loop may stand still.

    Attributes:
        ports: the ports that are listened on, after `start`: of the metrics, of the probes.
    """

    def __init__(
        self,
        metrics: Metrics,
        ready: Callable[[], bool],
        max_seconds: float = MAX_SECONDS,
        stuck_seconds: float = STUCK_SECONDS,
    ) -> None:
        self._metrics, self._ready = metrics, ready
        self._max_seconds, self._stuck_seconds = max_seconds, stuck_seconds
        self._rendering = asyncio.Lock()
        self._text, self._due = b"", float("-inf")
        self._beat = time.monotonic()
        self._beats: asyncio.Task[None]
        self._thread: threading.Thread
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self.ports: tuple[int, ...] = ()

    async def start(self, metrics_port: int, probe_port: int) -> None:
        """Listen on both ports; 0 takes any free one.

        Raises:
            OSError: a port is taken.
        """
        listeners: list[socket.socket] = []
        try:
            for port in (metrics_port, probe_port):
                listeners.append(_listener(port))
        except OSError:
            for listener in listeners:
                listener.close()
            raise
        self.ports = tuple(listener.getsockname()[1] for listener in listeners)
        self._beats = asyncio.create_task(self._show_life())
        self._thread = threading.Thread(target=self._run, args=(listeners,), name="http", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Close both ports."""
        self._beats.cancel()
        self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join)

    def _run(self, listeners: Sequence[socket.socket]) -> None:
        try:
            self._loop.run_until_complete(self._serve(listeners))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    async def _serve(self, listeners: Sequence[socket.socket]) -> None:
        """Answer on both ports until the server is stopped."""
        metrics, probes = web.Application(), web.Application()
        metrics.router.add_get("/metrics", self._show_metrics)
        probes.router.add_get("/healthz", self._healthz)
        probes.router.add_get("/readyz", self._readyz)
        runners: list[web.AppRunner] = []
        listening: list[asyncio.Task[None]] = []
        per_turn = (METRICS_PER_TURN, PROBES_PER_TURN)
        for app, listener, most in zip((metrics, probes), listeners, per_turn, strict=True):
            app.on_response_prepare.append(_close_after)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
            await runner.setup()
            runners.append(runner)
            accept = functools.partial(self._accept, runner, OrderedDict())
            listening.append(asyncio.create_task(_listen(listener, accept, most)))
        await self._stopping.wait()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        for listener in listeners:
            listener.close()
        for runner in runners:
            await runner.cleanup()

    async def _show_life(self) -> None:
        """In the loop that is watched: note the time, again and again."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

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
        with contextlib.suppress(ConnectionResetError):  # The client is gone, or was one of too many.
            await response.prepare(request)
            for start in range(0, len(text), CHUNK_BYTES):
                await response.write(text[start : start + CHUNK_BYTES])
            await response.write_eof()
        return response

    async def _healthz(self, _: web.Request) -> web.Response:
        still = time.monotonic() - self._beat
        if still <= self._stuck_seconds:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"nothing was reconciled for {still:.0f} s: the event loop stands still\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the watches are not established yet\n")


def _listener(port: int) -> socket.socket:
    """A socket that listens on a port, for both families of addresses."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    listener = socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    listener.setblocking(False)
    if _IS_HELD:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
    return listener


async def _listen(listener: socket.socket, accept: Callable[[], asyncio.Protocol], per_turn: int) -> None:
    """Accept connections in their order, and only so many a second."""
    loop = asyncio.get_running_loop()
    while True:
        requests = closed = 0
        try:
            while requests < per_turn and closed < CLOSED_PER_TURN:
                connection, _ = await loop.sock_accept(listener)
                if _has_request(connection):
                    requests += 1
                    await loop.connect_accepted_socket(accept, connection)
                else:
                    closed += 1
                    connection.close()
        except OSError as error:
            log.debug("a connection was lost before it was accepted: %s", error)
        await asyncio.sleep(TURN_SECONDS)


_IS_HELD = hasattr(socket, "TCP_DEFER_ACCEPT")
"""Whether the kernel holds a connection until something is sent on it."""


def _has_request(connection: socket.socket) -> bool:
    """Whether a connection that the kernel has held is worth a turn: a whole request has come."""
    if not _IS_HELD:
        return True
    try:
        return b"\r\n\r\n" in connection.recv(REQUEST_BYTES, socket.MSG_PEEK)
    except OSError:
        return False


async def _close_after(_: web.Request, response: web.StreamResponse) -> None:
    """Close the connection after its first answer: who wants more waits for another turn."""
    response.force_close()
