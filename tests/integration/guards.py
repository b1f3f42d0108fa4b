"""Starts the guarded app, or vLLM itself, in vLLM's environment, and speaks to it byte by byte."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import vllm
from hone import guard
from hone.core.modeldeployment.resources.access import PATHS
from tests.ways_around_keys import ALICE

APP = Path(__file__).with_name("guarded.py")
VLLM = ("-m", "vllm.entrypoints.openai.api_server")


def mount(directory: Path, **keys: str) -> None:
    """Write keys as the kubelet does: into a new directory, to which one link then leads."""
    version = directory / f"..{time.monotonic_ns()}"
    version.mkdir(parents=True)
    for name, key in keys.items():
        (version / name).write_text(key)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    link = directory / "..new"
    link.symlink_to(version.name)
    link.rename(directory / "..data")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in keys:
            entry.unlink()


def unmount(directory: Path) -> None:
    """Empty the directory, as the kubelet does after an optional Secret was deleted."""
    for entry in directory.iterdir():
        entry.unlink() if entry.is_symlink() else shutil.rmtree(entry)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Running:
    """A running app.

    Attributes:
        port: of the API.
        metrics: the port of metrics and readiness.
    """

    port: int
    metrics: int

    def send(self, *parts: bytes, port: int | None = None, seconds: float = 10, pause: float = 0) -> bytes:
        """All that comes back for these bytes until the server closes the connection, or says nothing for 1 s.

        Args:
            parts: sent one after the other.
            port: another one than that of the API.
            seconds: how long to wait for the first byte.
            pause: seconds between two parts.
        """
        with closing(socket.create_connection(("127.0.0.1", port or self.port), timeout=seconds)) as connection:
            answer = b""
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
                while piece := connection.recv(65536):
                    answer += piece
                    connection.settimeout(1)
            except (TimeoutError, ConnectionError):
                pass  # What came until then is the answer.
            return answer

    def ask(self, path: str, key: str | None = ALICE, method: str = "POST", body: bytes = b"{}") -> tuple[int, bytes]:
        """Status and body of an ordinary request, over a connection of its own."""
        bearer = f"authorization: Bearer {key}\r\n" if key is not None else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\n{bearer}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        return parse(self.send(head.encode() + body))

    def side(self, path: str, key: str | None = None) -> tuple[int, bytes]:
        """Status and body of a GET on the second port."""
        bearer = f"authorization: Bearer {key}\r\n" if key is not None else ""
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\n{bearer}connection: close\r\n\r\n"
        return parse(self.send(head.encode(), port=self.metrics))


def parse(answer: bytes) -> tuple[int, bytes]:
    """Status and body of an answer; 0 if there is none."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 else 0
    if b"transfer-encoding: chunked" not in head.lower():
        return status, rest
    body = b""
    while size := int(rest.partition(b"\r\n")[0] or b"0", 16):
        rest = rest.partition(b"\r\n")[2]
        body, rest = body + rest[:size], rest[size + 2 :]
    return status, body


@contextmanager
def running(
    directory: Path,
    http: str = "httptools",
    guarded: bool = True,
    vllm_arguments: Sequence[str] | None = None,
    **policy: Any,
) -> Iterator[Running]:
    """The app, until the block ends.

    Args:
        directory: for the module; its folder `keys` has the keys.
        http: how uvicorn parses HTTP; vLLM takes httptools where it is installed.
        guarded: whether the guard is there at all.
        vllm_arguments: of vLLM's own server, which is started in place of the app; None: the app.
        policy: fields of the policy that differ from a chat server's.
    """
    directory.mkdir(exist_ok=True)
    (directory / f"{guard.MODULE}.py").write_text(guard.source())
    port, metrics = free_port(), free_port()
    whole = {
        "keys": str(directory / "keys"),
        "paths": dict(PATHS["Chat"]),
        "max_body_bytes": 1 << 20,
        "body_seconds": 2,
        "requests_per_minute": None,
        "port": metrics,
        "drain_seconds": 1,
        **policy,
    }
    variables = {"PYTHONPATH": str(directory), "PATH": os.environ["PATH"], **policy.get("environment", {})}
    whole.pop("environment", None)
    if guarded:
        variables[guard.VARIABLE] = json.dumps(whole)
    command, seconds = [str(APP), str(port), http], 60
    if vllm_arguments is not None:
        command, seconds = [*VLLM, *vllm_arguments, "--host=127.0.0.1", f"--port={port}"], vllm.SECONDS_TO_START
    log = (directory / "log").open("w")
    process = subprocess.Popen([str(vllm.ensure()), *command], stdout=log, stderr=log, env=variables, cwd=directory)
    server = Running(port, metrics)
    try:
        _wait(server, process, directory / "log", seconds)
        yield server
    finally:
        process.terminate()
        process.wait(vllm.SECONDS_TO_STOP)
        log.close()


def _wait(server: Running, process: "subprocess.Popen[bytes]", log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            if server.ask("/health", None, "GET", b"")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the app does not answer: {log.read_text()}")
