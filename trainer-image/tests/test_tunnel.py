"""The way to the rendezvous: peers pass, and strangers reach nothing, learn nothing and lock nobody out."""

import contextlib
import errno
import hmac
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from launchers import free_port

from hone_trainer.launcher import tunnel

KEY = b"k" * 32
HELLO = tunnel._GREETING
NONCE = b"n" * 32
WAIT = 60.0
"""Seconds in which pod 0 must appear; more than any test takes."""


class Store:
    """A server on the loopback address that answers each line with itself, and counts who came."""

    def __init__(self) -> None:
        self.connections = 0
        self.bytes = b""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(4096):
                self.bytes += data
                connection.sendall(data)

    def close(self) -> None:
        """Accept no more."""
        self._server.close()


@pytest.fixture
def store() -> Iterator[Store]:
    """What the entrance leads to."""
    server = Store()
    yield server
    server.close()


@pytest.fixture
def port(store: Store) -> Iterator[int]:
    """An open entrance's port."""
    port = free_port()
    with tunnel.entrance(port, store.port, KEY):
        yield port


def receive(connection: socket.socket, count: int) -> bytes:
    """That many bytes, or those that came before the end."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while len(data) < count and (chunk := connection.recv(count - len(data))):
            data += chunk
    return data


def dial(port: int) -> socket.socket:
    """A connection that waits for an answer as long as a test may."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def ask(port: int, data: bytes) -> bytes:
    """Send something, and return as many bytes of the answer."""
    with dial(port) as connection:
        connection.sendall(data)
        return receive(connection, len(data))


def test_a_peer_passes_and_what_it_sends_arrives_whole(port: int, store: Store) -> None:
    local, data = free_port(), secrets.token_bytes(3_000_000)
    with tunnel.passage("127.0.0.1", port, local, KEY, seconds=WAIT), dial(local) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert receive(connection, len(data)) == data
        sender.join()
    assert store.connections == 1


@pytest.mark.slow
def test_a_peer_may_come_before_pod_0(store: Store) -> None:
    port, local = free_port(), free_port()
    with tunnel.passage("127.0.0.1", port, local, KEY, seconds=WAIT), ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, local, b"early")
        with pytest.raises(TimeoutError):
            answer.result(1)
        with tunnel.entrance(port, store.port, KEY):
            assert answer.result(20) == b"early"


def answer_of(greeting: bytes, key: bytes = KEY, side: bytes = b"client") -> bytes:
    """What somebody who knows `key` answers to the entrance's greeting."""
    return hmac.digest(key, side + greeting[len(HELLO) :] + NONCE, "sha256")


# What a stranger sends: at once, and after the entrance's greeting.
STRANGERS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "nothing of ours: the first bytes of a TCPStore's client": (b"\x00" * 76, lambda _: b""),
    "an HTTP request": (b"GET / HTTP/1.1\r\nHost: rank\r\n\r\n" * 4, lambda _: b""),
    "a proof by another key": (HELLO + NONCE, lambda greeting: answer_of(greeting, b"x" * 32)),
    "a proof by an empty key": (HELLO + NONCE, lambda greeting: answer_of(greeting, b"")),
    "the proof of the other side": (HELLO + NONCE, lambda greeting: answer_of(greeting, side=b"server")),
    "the entrance's own value sent back": (HELLO + NONCE, lambda greeting: greeting[len(HELLO) :]),
    "a proof cut short": (HELLO + NONCE, lambda greeting: answer_of(greeting)[:-1] + b"\0"),
    "more bytes than a handshake has": (HELLO + b"a" * 1_000_000, lambda _: b""),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_reaches_nothing(port: int, store: Store, stranger: str) -> None:
    first, then = STRANGERS[stranger]
    with dial(port) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(first)
        connection.sendall(then(receive(connection, len(HELLO) + 32)))
        assert receive(connection, 1) == b"", "the connection should have ended without another byte"
    assert (store.connections, store.bytes) == (0, b"")


def test_the_handshake_of_a_peer_is_worth_nothing_later(port: int, store: Store) -> None:
    with dial(port) as connection:
        connection.sendall(HELLO + NONCE)
        proof = answer_of(receive(connection, len(HELLO) + 32))
        connection.sendall(proof)
        assert len(receive(connection, 32)) == 32
    with dial(port) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(HELLO + NONCE + proof)
        assert len(receive(connection, len(HELLO) + 33)) == len(HELLO) + 32
    assert store.connections == 1


@pytest.mark.slow
def test_who_stands_for_pod_0_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "_RETRY_SECONDS", 0.1)
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        port, local = impostor.getsockname()[1], free_port()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = impostor.accept()
                    with connection:
                        connection.settimeout(20)
                        connection.sendall(HELLO + NONCE)
                        data = receive(connection, len(HELLO) + 64)
                        connection.sendall(data[-32:])
                        seen.append(data + receive(connection, 1))

        threading.Thread(target=serve, daemon=True).start()
        with tunnel.passage("127.0.0.1", port, local, KEY, seconds=1.0):
            assert ask(local, b"weights") == b""
    assert seen
    assert all(len(data) == len(HELLO) + 64 and b"weights" not in data for data in seen)


def test_silent_strangers_lock_nobody_out(port: int, store: Store) -> None:
    local = free_port()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(dial(port)) for _ in range(3 * tunnel.MAX_UNPROVED)]
        stack.enter_context(tunnel.passage("127.0.0.1", port, local, KEY, seconds=WAIT))
        begin = time.monotonic()
        assert ask(local, b"still here") == b"still here"
        assert time.monotonic() - begin < tunnel.HANDSHAKE_SECONDS, "it waited for the strangers' time to pass"
        assert len(receive(silent[0], len(HELLO) + 33)) == len(HELLO) + 32, "the oldest should have been ended"
    assert store.connections == 1


def test_a_silent_stranger_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "HANDSHAKE_SECONDS", 0.3)
    port = free_port()
    with tunnel.entrance(port, store.port, KEY), dial(port) as connection:
        assert len(receive(connection, len(HELLO) + 33)) == len(HELLO) + 32, "its end should have come after 0.3 s"


def test_the_ports_are_closed_with_the_block(store: Store) -> None:
    port = free_port()
    with tunnel.entrance(port, store.port, KEY):
        held = dial(port)
    with held, pytest.raises(ConnectionRefusedError):
        receive(held, len(HELLO) + 33)
        dial(port)


def test_a_port_in_use_is_an_error(store: Store) -> None:
    with pytest.raises(OSError, match="in use"), tunnel.entrance(store.port, store.port, KEY):
        pytest.fail("it is not open")


# The key.


def test_all_pods_have_one_key(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: tunnel.load_key(directory), range(64)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert [path.name for path in directory.iterdir()] == [tunnel.KEY_FILE], "temporary files are left"
    assert (directory / tunnel.KEY_FILE).stat().st_mode & 0o077 == 0
    assert tunnel.load_key(tmp_path / "another") != tunnel.load_key(directory)


def test_all_pods_have_one_key_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(tunnel.os, "link", refuse)
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: tunnel.load_key(tmp_path), range(64)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == [tunnel.KEY_FILE]
    assert (tmp_path / tunnel.KEY_FILE).stat().st_mode & 0o077 == 0


def test_a_key_that_is_cut_short_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "_KEY_WAIT_SECONDS", 0.2)
    (tmp_path / tunnel.KEY_FILE).write_bytes(b"")
    with pytest.raises(TimeoutError, match=tunnel.KEY_FILE):
        tunnel.load_key(tmp_path)
