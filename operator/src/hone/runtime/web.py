"""The HTTP servers of the process: `/healthz` and `/readyz` on one port, `/metrics` on another."""

from collections.abc import Callable

from aiohttp import web

from hone.runtime.metrics import Metrics

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Server:
    """Serves probes and metrics in the running loop; any answer of `/healthz` means that the process is alive.

    Args:
        metrics: what `/metrics` shows.
        ready: whether `/readyz` says yes.

    Attributes:
        ports: the ports that are listened on, after `start`: of the metrics, of the probes.
    """

    def __init__(self, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self._metrics, self._ready = metrics, ready
        self._runners: list[web.AppRunner] = []
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
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            self._runners.append(runner)
            await web.TCPSite(runner, port=port).start()
            self.ports = (*self.ports, runner.addresses[0][1])

    async def stop(self) -> None:
        """Close both ports."""
        for runner in self._runners:
            await runner.cleanup()

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": METRICS_TYPE})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the watches are not established yet\n")
