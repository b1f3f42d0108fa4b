"""The ports of metrics and probes, when many or hostile clients connect."""

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dev.cluster.controlplane import free_ports
from hone.runtime import web
from hone.runtime.metrics import Metrics
from hone.runtime.web import MAX_CONNECTIONS, Server


class Counting(Metrics):
    """Metrics whose rendering a test can hold up."""

    def __init__(self) -> None:
        super().__init__()
        self.renderings = 0
        self.released = threading.Event()
        self.released.set()

    def text(self) -> bytes:
        self.renderings += 1
        assert self.released.wait(10.0)
        return super().text()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server(Counting(), lambda: True, max_seconds=60.0)
    await running.start(0, 0)
    yield running
    await running.stop()


async def fetch(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_metrics_and_probes_answer_on_ports_of_their_own(server: Server) -> None:
    metrics, probes = server.ports
    status, text = await fetch(metrics, "/metrics")
    assert status == 200 and b"workqueue_depth" in text
    assert await fetch(probes, "/healthz") == (200, b"ok\n")
    assert (await fetch(probes, "/readyz"))[0] == 200
    assert (await fetch(metrics, "/healthz"))[0] == 404


@pytest.mark.slow
async def test_many_readers_cost_one_rendering_and_the_probes_go_on_meanwhile(server: Server) -> None:
    metrics, probes = server.ports
    assert isinstance(server._metrics, Counting)
    server._metrics.released.clear()
    readers = [asyncio.create_task(fetch(metrics, "/metrics")) for _ in range(40)]
    for _ in range(100):
        await asyncio.sleep(0.01 if server._metrics.renderings else 0.05)
    assert (await fetch(probes, "/healthz"))[0] == 200
    assert server._metrics.renderings == 1 and not any(reader.done() for reader in readers)
    server._metrics.released.set()
    assert {status for status, _ in await asyncio.gather(*readers)} == {200}
    assert server._metrics.renderings == 1


async def test_metrics_are_rendered_again_after_a_while(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(web, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(web, "PAUSES", 0)
    for _ in range(2):
        await fetch(server.ports[0], "/metrics")
    assert isinstance(server._metrics, Counting) and server._metrics.renderings == 2


async def test_metrics_that_take_long_are_rendered_less_often(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(web, "CACHE_SECONDS", 0.0)
    assert isinstance(server._metrics, Counting)
    server._metrics.released.clear()
    asyncio.get_running_loop().call_later(0.5, server._metrics.released.set)
    for _ in range(3):
        await fetch(server.ports[0], "/metrics")
    assert server._metrics.renderings == 1
    server._due -= 2.5
    await fetch(server.ports[0], "/metrics")
    assert server._metrics.renderings == 1, "not yet ten times as long as it took"
    server._due -= 10.0
    await fetch(server.ports[0], "/metrics")
    assert server._metrics.renderings == 2


async def test_readers_that_read_nothing_take_no_memory(server: Server, monkeypatch: Any) -> None:
    size = 8 * 2**20
    monkeypatch.setattr(server._metrics, "text", lambda: b"#" * size)
    tracemalloc.start()
    try:
        readers = [await asyncio.open_connection("127.0.0.1", server.ports[0], limit=1024) for _ in range(20)]
        for _, writer in readers:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        first = await asyncio.gather(*(reader.readline() for reader, _ in readers))
        status, body = await fetch(server.ports[0], "/metrics")
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(first) == {b"HTTP/1.1 200 OK\r\n"} and (status, len(body)) == (200, size)
    assert used < 6 * size, "not once for each reader"
    for _, writer in readers:
        writer.close()


async def test_those_who_connect_without_pause_are_answered_one_after_the_other(server: Server) -> None:
    began = time.monotonic()
    answers = await asyncio.gather(*(fetch(server.ports[0], "/metrics") for _ in range(30)))
    assert {status for status, _ in answers} == {200}
    assert time.monotonic() - began >= 29 * web.TURN_SECONDS


async def test_a_connection_gets_one_answer(server: Server) -> None:
    for port, path in zip(server.ports, ("/metrics", "/healthz"), strict=True):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(2 * f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answers = await asyncio.wait_for(reader.read(), timeout=20.0)
        assert answers.count(b"HTTP/1.1 ") == 1
        writer.close()


@pytest.mark.slow
async def test_a_probe_is_answered_while_others_connect_in_masses(server: Server) -> None:
    for _ in range(3):
        crowd = [socket.socket() for _ in range(300)]
        for client in crowd:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", server.ports[1]))
        assert (await asyncio.wait_for(fetch(server.ports[1], "/healthz"), timeout=20.0))[0] == 200
        for client in crowd:
            client.close()


async def test_both_families_of_addresses_are_answered(server: Server) -> None:
    for host in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
        reader, writer = await asyncio.open_connection(host, server.ports[1])
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.slow
async def test_connections_on_which_half_a_request_is_sent_are_closed_and_delay_nobody(server: Server) -> None:
    for port, path in zip(server.ports, ("/metrics", "/healthz"), strict=True):
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
        for client in crowd:
            client.sendall(b"GET /")
        began = time.monotonic()
        assert (await asyncio.wait_for(fetch(port, path), timeout=20.0))[0] == 200
        assert time.monotonic() - began < 500 * web.TURN_SECONDS / web.PROBES_PER_TURN, "they got no turns"
        for client in crowd:
            client.settimeout(20.0)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
            client.close()


@pytest.mark.slow
async def test_of_too_many_connections_the_oldest_are_closed(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(server._metrics, "text", lambda: b"#" * 2**23)
    clients: list[socket.socket] = []
    for _ in range(MAX_CONNECTIONS + 2):
        clients.append(client := socket.create_connection(("127.0.0.1", server.ports[0])))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.to_thread(client.recv, 15) == b"HTTP/1.1 200 OK"
    last = await asyncio.gather(*(asyncio.to_thread(received, client) for client in (*clients[:2], clients[-1])))
    assert last[0] < 2**23 and last[1] < 2**23 and last[2] >= 2**23
    for client in clients:
        client.close()


async def test_clients_that_leave_before_their_answer_are_not_logged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(server._metrics, Counting)
    server._metrics.released.clear()
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", server.ports[0])) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(100):
                await asyncio.sleep(0.01 if server._metrics.renderings else 0.05)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        server._metrics.released.set()
    assert (await fetch(server.ports[0], "/metrics"))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def received(client: socket.socket) -> int:
    """How many bytes still come until the connection is closed."""
    client.settimeout(20.0)
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(2**16):
            count += len(part)
    return count


async def test_connections_on_which_nothing_is_sent_delay_nobody(server: Server) -> None:
    """Each that is accepted costs a third of a millisecond, and takes the turn of another one."""
    crowd = [socket.socket() for _ in range(2000)]
    for client in crowd:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", server.ports[1]))
    used = time.process_time()
    assert (await asyncio.wait_for(fetch(server.ports[1], "/healthz"), timeout=20.0))[0] == 200
    assert time.process_time() - used < 0.2
    for client in crowd:
        client.close()


@pytest.mark.slow
async def test_connections_on_which_nothing_is_sent_leave_the_kernels_queue_before_a_probe_gives_up(
    server: Server,
) -> None:
    """Until then they fill it, and the kernel drops who connects."""
    with socket.create_connection(("127.0.0.1", server.ports[1])) as client:
        client.settimeout(4.0)
        assert await asyncio.to_thread(client.recv, 1) == b""


async def test_a_connection_is_closed_after_a_while(monkeypatch: Any) -> None:
    server = Server(Counting(), lambda: True, max_seconds=0.5)
    monkeypatch.setattr(server._metrics, "text", lambda: b"#" * 2**23)
    await server.start(0, 0)
    with socket.create_connection(("127.0.0.1", server.ports[0])) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1.0)  # and nothing is read
        assert await asyncio.to_thread(received, client) < 2**23
    await server.stop()


def probe(port: int, path: str) -> int:
    """The status of an answer, or that of an error."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5.0) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_probes_are_answered_while_the_loop_is_busy(server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        for path in ("/healthz", "/readyz"):
            assert pool.submit(probe, server.ports[1], path).result() == 200  # without an await


async def test_a_loop_that_stands_still_fails_its_liveness_probe_until_it_runs_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(web, "BEAT_SECONDS", 0.05)
    server = Server(Counting(), lambda: True, stuck_seconds=0.3)
    await server.start(0, 0)

    def until(status: int) -> None:
        for _ in range(500):
            if probe(server.ports[1], "/healthz") == status:
                return
            time.sleep(0.01)
        raise AssertionError(f"never {status}")

    with ThreadPoolExecutor() as pool:
        pool.submit(until, 503).result()  # without an await
        await asyncio.wrap_future(pool.submit(until, 200))
    await server.stop()


async def test_a_port_that_is_taken_is_an_error_and_leaves_the_other_one_free(server: Server) -> None:
    (free,) = free_ports(1)
    other = Server(Counting(), lambda: True)
    with pytest.raises(OSError, match="in use"):
        await other.start(free, server.ports[1])
    socket.create_server(("", free)).close()
