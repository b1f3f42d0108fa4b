"""The HTTP port of trainer pods, /metrics, /progress and /healthz, and of prepare pods, which have no metrics."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from hone.contract.progress import Progress
from hone.contract.runconfig import METRICS_PORT
from hone_trainer.launcher.metrics import RankCollector
from hone_trainer.protocol.probe import Probe
from hone_trainer.protocol.rows_done import rows_done
from hone_trainer.protocol.status import StatusDir

METRICS_PORT_ENV = "HONE_METRICS_PORT"
"""Environment variable with another port of /metrics and /progress; 0 takes a free one. For several on one machine."""
logger = logging.getLogger(__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _DualStackServer(_Server):
    """Listens on IPv6 and IPv4 by one socket: a pod may have addresses of either family, or of both."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def serve(
    port: int,
    status: StatusDir,
    progress: Callable[[], Progress] | None,
    measured: Callable[[], Probe | None] = lambda: None,
) -> ThreadingHTTPServer:
    """Serve in a thread of this process until `shutdown()`.

    Args:
        port: port on all addresses; 0 takes a free one (see `server_port`).
        status: where the ranks report their state.
        progress: the answer of /progress. None: rank 0 is in another pod, /progress is 404.
        measured: what the probe measured.

    Raises:
        OSError: the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(RankCollector(status, measured))
    return _start(port, _handler(registry, progress))


def port_of_pod() -> int:
    """The port that this pod serves at."""
    return int(os.environ.get(METRICS_PORT_ENV) or METRICS_PORT)


def serve_rows() -> None:
    """Serve how far prepare is with the rows, until this process ends."""
    try:
        _start(port_of_pod(), _handler(CollectorRegistry(), rows_done.progress))
    except OSError as error:
        logger.warning("progress is not served", extra={"reason": str(error)})


def _start(port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = (_DualStackServer if socket.has_dualstack_ipv6() else _Server)(("", port), handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


def _handler(registry: CollectorRegistry, progress: Callable[[], Progress] | None) -> type[BaseHTTPRequestHandler]:
    """The class that answers requests; arguments as of `serve`."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for a client to send its request; a silent one must not hold a thread
        server_version = "hone-trainer"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/progress" and progress is not None:
                self._answer(200, "application/json", progress().to_json().encode())
            elif path == "/healthz":
                self._answer(200, "text/plain", b"ok\n")
            else:
                self._answer(404, "text/plain", b"not found\n")

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes every few seconds are not logged."""

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
