"""The trainer pod's HTTP port: /metrics, /progress and /healthz."""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from hone.contract.progress import Progress
from hone_trainer.launcher.metrics import RankCollector
from hone_trainer.protocol.probe import Probe
from hone_trainer.protocol.status import StatusDir


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
    server = (_DualStackServer if socket.has_dualstack_ipv6() else _Server)(("", port), _handler(registry, progress))
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
