"""Ways around the key of a server: none of them is answered. Against uvicorn, with both of its HTTP parsers."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.guards import Running, mount, parse, running, unmount
from tests.ways_around_keys import ALICE, BOB, CHAT, KEY, OLD, WAYS, answered, bearer, request


@pytest.fixture(scope="module", params=["httptools", "h11"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A chat server of two clients; the key of one of them was another one, and was used, before."""
    directory = tmp_path_factory.mktemp("guard")
    mount(directory / "keys", alice=OLD, small="short")
    with running(directory, http=request.param) as app:
        assert app.ask("/v1/models", OLD, "GET", b"")[0] == 200
        mount(directory / "keys", alice=ALICE + "\n", bob=BOB, small="short")
        deadline = time.monotonic() + 10
        while app.ask("/v1/models", OLD, "GET", b"")[0] != 401:
            assert time.monotonic() < deadline, "the old key still counts"
        yield app


@pytest.mark.parametrize("way", WAYS)
def test_no_way_around_the_key_is_answered(way: str, server: Running) -> None:
    answer = server.send(WAYS[way])
    assert b"ANSWERED" not in answer
    assert not answered(answer)
    assert server.ask("/v1/models", ALICE, "GET", b"") == (200, b"ANSWERED 0 Bearer " + ALICE.encode())


def test_each_client_has_its_answer_and_the_health_needs_no_key(server: Running) -> None:
    for key in (ALICE, BOB):
        assert server.ask("/v1/chat/completions", key, body=b"x" * 1000)[0] == 200
        assert server.ask("/v1/models", key, "GET", b"") == (200, f"ANSWERED 0 Bearer {key}".encode())
    assert server.ask("/health", None, "GET", b"") == (200, b"")
    old = server.send(request(CHAT, KEY, b"POST", b"{}", b"1.0"))
    assert parse(old)[1].startswith(b"ANSWERED 2 ")
    head = b"POST %s HTTP/1.1\r\nhost: x\r\n%stransfer-encoding: chunked\r\n\r\n" % (CHAT, KEY)
    chunks = server.send(head, b"2\r\n{}\r\n", b"3\r\n...\r\n0\r\n\r\n", pause=0.1)
    assert parse(chunks)[1].startswith(b"ANSWERED 5 ")


def test_slow_bodies_are_ended_with_and_without_a_key(server: Running) -> None:
    head = b"POST %s HTTP/1.1\r\nhost: x\r\n%scontent-length: 9\r\n\r\n{"
    assert server.send(head % (CHAT, b"")).startswith(b"HTTP/1.1 401")
    started = time.monotonic()
    assert server.send(head % (CHAT, KEY)).startswith(b"HTTP/1.1 408")
    assert 1.5 < time.monotonic() - started < 8


def test_metrics_and_readiness_are_on_a_port_of_their_own(server: Running) -> None:
    assert server.side("/metrics") == (200, b"ANSWERED_total 1\n")
    assert server.side("/ready") == (200, b"")
    for path in ("/v1/models", "/health", "//metrics", "/metrics/../v1/models"):
        status, body = server.side(path, ALICE)
        assert status == 404 and b"ANSWERED" not in body


def test_without_keys_nobody_is_answered_and_the_server_is_not_ready(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.ask("/v1/models", ALICE, "GET", b"")[0] == 401
        assert server.ask("/v1/models", "", "GET", b"")[0] == 401
        assert (server.side("/ready")[0], server.ask("/health", None, "GET", b"")[0]) == (503, 200)
        mount(tmp_path / "keys", alice=ALICE)
        _becomes(server, 200)
        assert server.side("/ready")[0] == 200
        unmount(tmp_path / "keys")
        _becomes(server, 401)
        assert server.side("/ready")[0] == 503


def test_each_key_has_its_own_rate(tmp_path: Path) -> None:
    mount(tmp_path / "keys", alice=ALICE, bob=BOB)
    with running(tmp_path, requests_per_minute=3) as server:
        answers = [server.send(request(headers=bearer(ALICE))) for _ in range(4)]
        assert [answer.split()[1] for answer in answers] == [b"200", b"200", b"200", b"429"]
        assert b"retry-after: 2" in answers[3] or b"retry-after: 1" in answers[3]
        assert server.ask("/v1/models", BOB, "GET", b"")[0] == 200


def test_open_has_no_key_but_the_same_paths_and_limits(tmp_path: Path) -> None:
    with running(tmp_path, keys=None) as server:
        assert server.ask("/v1/models", None, "GET", b"")[0] == 200
        assert server.ask("/metrics", None, "GET", b"")[0] == 404
        assert server.ask("/v1/chat/completions", None, body=b"x" * 2_000_000)[0] in (413, 0)
        assert server.side("/ready")[0] == 200


def test_a_key_of_vllms_own_counts_as_well_and_is_the_only_one_that_vllm_sees(tmp_path: Path) -> None:
    mount(tmp_path / "keys", alice=ALICE)
    with running(tmp_path, environment={"VLLM_API_KEY": BOB}) as server:
        for key in (ALICE, BOB):
            assert server.ask("/v1/models", key, "GET", b"") == (200, f"ANSWERED 0 Bearer {BOB}".encode())
        assert server.ask("/v1/models", OLD, "GET", b"")[0] == 401


def test_clients_are_sent_elsewhere_before_the_server_stops(tmp_path: Path) -> None:
    mount(tmp_path / "keys", alice=ALICE)
    with running(tmp_path) as server, ThreadPoolExecutor(1) as pool:
        clients = [HTTPConnection("127.0.0.1", server.port, timeout=10) for _ in range(2)]
        for client in clients:
            client.request("GET", "/v1/models", headers={"Authorization": f"Bearer {ALICE}"})
            assert client.getresponse().read().startswith(b"ANSWERED")
            assert client.sock is not None
        began = time.monotonic()
        hook = pool.submit(server.side, "/drain")
        deadline = time.monotonic() + 5
        # Each is answered on its old connection, for the last time.
        while clients[0].sock is not None:
            assert time.monotonic() < deadline
            clients[0].request("GET", "/v1/models", headers={"Authorization": f"Bearer {ALICE}"})
            assert clients[0].getresponse().read().startswith(b"ANSWERED")
        clients[1].request("GET", "/v1/models", headers={"Authorization": f"Bearer {ALICE}"})
        answer = clients[1].getresponse()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        # Whoever has not heard of it yet connects, and is answered.
        assert server.ask("/v1/models", ALICE, "GET", b"")[0] == 200
        assert hook.result() == (200, b"")
        assert time.monotonic() - began >= 1


def _becomes(server: Running, status: int) -> None:
    deadline = time.monotonic() + 10
    while server.ask("/v1/models", ALICE, "GET", b"")[0] != status:
        assert time.monotonic() < deadline, f"not {status}"
