"""Ways around the key of a server: none of them is answered. Against uvicorn, with both of its HTTP parsers."""

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.guards import ALICE, BOB, OLD, Running, mount, parse, running, unmount

CHAT, MODELS = b"/v1/chat/completions", b"/v1/models"
KEY = f"authorization: Bearer {ALICE}\r\n".encode()


def request(
    path: bytes = MODELS, headers: bytes = b"", method: bytes = b"GET", body: bytes = b"", version: bytes = b"1.1"
) -> bytes:
    """A request whose length is announced where it has a body."""
    length = b"content-length: %d\r\n" % len(body) if body else b""
    return b"%s %s HTTP/%s\r\nhost: x\r\n%s%s\r\n%s" % (method, path, version, headers, length, body)


def bearer(key: str) -> bytes:
    """The header with a key."""
    return f"authorization: Bearer {key}\r\n".encode()


HEALTH = request(b"/health")
BASIC = base64.b64encode(f":{ALICE}".encode())
SMUGGLED = request(MODELS)
WEBSOCKET = (
    b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
WAYS = {
    # Without a key.
    "no key": request(),
    "chat without a key": request(CHAT, method=b"POST", body=b"{}"),
    "no key, HTTP/1.0": request(version=b"1.0"),
    "no key, no host": b"GET /v1/models HTTP/1.0\r\n\r\n",
    "HTTP/0.9": b"GET /v1/models\r\n",
    # Keys that are none.
    "empty key": request(headers=b"authorization: Bearer \r\n"),
    "no word but the scheme": request(headers=b"authorization: Bearer\r\n"),
    "empty header": request(headers=b"authorization:\r\n"),
    "wrong key": request(headers=bearer("x" * 32)),
    "key with a letter less": request(headers=bearer(ALICE[:-1])),
    "key with a letter more": request(headers=bearer(ALICE + "x")),
    "key in capitals": request(headers=bearer(ALICE.upper())),
    "key and another one": request(headers=bearer(f"{ALICE},{BOB}")),
    "key of before the rotation": request(headers=bearer(OLD)),
    "name of a key": request(headers=bearer("alice")),
    "a key that is too short to count": request(headers=bearer("short")),
    "a star": request(headers=bearer("*")),
    "key with a zero byte": request(headers=b"authorization: Bearer \0\r\n"),
    "two headers, one of them right": request(headers=bearer("x" * 32) + KEY),
    "the right header twice": request(headers=KEY + KEY),
    # Other places for the key.
    "key as a password": request(headers=b"authorization: Basic " + BASIC + b"\r\n"),
    "key without a scheme": request(headers=f"authorization: {ALICE}\r\n".encode()),
    "key in the query": request(b"/v1/models?api_key=%s&key=%s&token=%s" % ((ALICE.encode(),) * 3)),
    "key in a cookie": request(headers=f"cookie: authorization=Bearer {ALICE}\r\n".encode()),
    "key in x-api-key": request(headers=f"x-api-key: {ALICE}\r\n".encode()),
    "key in a proxy's header": request(headers=b"proxy-" + KEY),
    # Headers by which proxies tell who asks, or what is asked for.
    "headers of proxies": request(
        headers=b"x-forwarded-for: 127.0.0.1\r\nx-real-ip: ::1\r\nforwarded: for=::1\r\nx-remote-user: admin\r\n"
    ),
    "another path in a header": request(
        b"/health", b"x-original-url: /v1/models\r\nx-rewrite-url: /v1/models\r\nx-forwarded-prefix: /v1/models\r\n"
    ),
    "another method in a header": request(headers=b"x-http-method-override: OPTIONS\r\n"),
    "host of loopback": b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    # Methods.
    "OPTIONS": request(CHAT, method=b"OPTIONS"),
    "preflight of a browser": request(
        CHAT, b"origin: http://x\r\naccess-control-request-method: POST\r\n", method=b"OPTIONS"
    ),
    "OPTIONS *": request(b"*", method=b"OPTIONS"),
    "HEAD": request(method=b"HEAD"),
    "TRACE": request(method=b"TRACE"),
    "CONNECT": request(b"x:443", method=b"CONNECT"),
    "method in small letters": request(method=b"get"),
    "POST to the health": request(b"/health", method=b"POST", body=b"{}"),
    # Paths that look like the health's.
    "two slashes": request(b"//v1/models"),
    "two slashes before the health": request(b"//health"),
    "slash at the end": request(b"/v1/models/"),
    "dots after the health": request(b"/health/../v1/models"),
    "encoded dots after the health": request(b"/health/%2e%2e/v1/models"),
    "doubly encoded dots": request(b"/health/%252e%252e/v1/models"),
    "encoded slash": request(b"/health%2f..%2fv1%2fmodels"),
    "backslashes": request(b"/health\\..\\v1\\models"),
    "encoded letters": request(b"/%76%31/%6d%6f%64%65%6c%73"),
    "path in capitals": request(b"/V1/MODELS"),
    "zero byte after the health": request(b"/health%00/v1/models"),
    "parameter of a path": request(b"/health;/v1/models"),
    "newline in the path": request(b"/health%0d%0a/v1/models"),
    "health as the query": request(b"/v1/models?/health"),
    "health as the fragment": request(b"/v1/models#/health"),
    "letters of another alphabet": request("/ｖ1/models".encode()),
    "no path": request(b""),
    "target with a host": request(b"http://x/v1/models"),
    "target with a host and the health": request(b"http://x/health/../v1/models"),
    "target with a user": request(b"http://health@x/v1/models"),
    # Paths that vLLM's own key leaves open.
    "metrics": request(b"/metrics"),
    "classes": request(b"/classify", method=b"POST", body=b"{}"),
    "pooling": request(b"/pooling", method=b"POST", body=b"{}"),
    "invocations": request(b"/invocations", method=b"POST", body=b"{}"),
    "tokens": request(b"/tokenize", method=b"POST", body=b"{}"),
    "documentation": request(b"/openapi.json"),
    "version": request(b"/version"),
    "ping": request(b"/ping"),
    # Connections.
    "second on a connection": HEALTH + request(),
    "twenty on a connection": HEALTH + 20 * request(),
    "second after a good one": request(CHAT, KEY, b"POST", b"{}").replace(CHAT, b"/none") + request(),
    "inside the body of the health": request(b"/health", body=SMUGGLED),
    "two lengths": request(b"/health", b"content-length: 0\r\n", body=SMUGGLED),
    "length and chunks": (
        b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        + SMUGGLED
    ),
    "chunks of another name": (
        b"POST /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    ),
    "folded header": request(headers=b"x: y\r\n authorization: Bearer " + ALICE.encode() + b"\r\n"),
    "space before the colon": request(headers=b"authorization : Bearer " + ALICE.encode() + b"\r\n"),
    "bare line feeds": b"GET /v1/models HTTP/1.1\nhost: x\n\n",
    "WebSocket": request(b"/v1/realtime", WEBSOCKET),
    "WebSocket with a key": request(b"/v1/realtime", WEBSOCKET.replace(b"key: ", b"key: ") + KEY),
    "HTTP/2 in the clear": request(
        headers=b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    ),
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("160301002f0100002b0303") + bytes(37),
    # Size.
    "huge header": request(headers=b"x: " + b"y" * (1 << 20) + b"\r\n"),
    "huge key": request(headers=bearer("x" * (1 << 20))),
    "a thousand headers": request(headers=b"".join(b"x%d: y\r\n" % number for number in range(1000))),
    "10 MB body without a key": request(CHAT, method=b"POST", body=b"x" * 10_000_000),
    "10 MB body with a key": request(CHAT, KEY, b"POST", b"x" * 10_000_000),
    "10 MB in chunks with a key": (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + KEY + b"transfer-encoding: chunked\r\n\r\n"
        b"989680\r\n" + b"x" * 10_000_000 + b"\r\n0\r\n\r\n"
    ),
    # With a key: what is not the server's API.
    "another API": request(b"/classify", KEY, b"POST", b"{}"),
    "metrics with a key": request(b"/metrics", KEY),
    "adapters of vLLM's developers": request(b"/v1/load_lora_adapter", KEY, b"POST", b"{}"),
    "path below one of the API's": request(b"/v1/models/../../metrics", KEY),
    "another method": request(CHAT, KEY, b"DELETE"),
}


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
    assert b"ANSWERED" not in server.send(WAYS[way])
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
