"""The guard without a server: keys that change, rates, and what reaches the app. Ways around it: tests/integration."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hone import guard
from hone.guard.access import MAX_KEY, MIN_KEY, Guard, Keys, Rate

ALICE, BOB = "key-of-alice-0123456789", "key-of-bob-0123456789"


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def keys(directory: Path, **entries: str) -> Path:
    """A directory with these keys alone."""
    directory.mkdir(exist_ok=True)
    for file in directory.iterdir():
        file.unlink()
    for name, key in entries.items():
        (directory / name).write_text(key)
    return directory


def test_keys_are_read_again_within_a_second(tmp_path: Path) -> None:
    clock, directory = Clock(), keys(tmp_path / "keys", alice=ALICE)
    known = Keys(str(directory), clock=clock)
    assert (known.holder(ALICE.encode()), known.holder(BOB.encode())) == ("alice", None)
    keys(directory, bob=BOB)
    clock.now = 0.5
    assert known.holder(ALICE.encode()) == "alice"
    clock.now = 1.0
    assert (known.holder(ALICE.encode()), known.holder(BOB.encode())) == (None, "bob")


@pytest.mark.parametrize("key", ["", " \n", "x" * (MIN_KEY - 1), "x" * (MAX_KEY + 1)])
def test_a_key_that_could_be_guessed_does_not_count(key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = Keys(str(keys(tmp_path / "keys", alice=key)))
    assert not known.exist()
    assert known.holder(key.strip().encode()) is None
    assert "'alice' does not count" in caplog.text


def test_white_space_around_a_key_is_no_part_of_it(tmp_path: Path) -> None:
    assert Keys(str(keys(tmp_path / "keys", alice=f" {ALICE}\r\n"))).holder(ALICE.encode()) == "alice"


def test_an_entry_that_is_a_directory_or_the_kubelets_own_is_no_key(tmp_path: Path) -> None:
    directory = keys(tmp_path / "keys", bob=BOB, **{"..data": ALICE})
    (directory / "folder").mkdir()
    known = Keys(str(directory))
    assert (known.holder(ALICE.encode()), known.holder(BOB.encode())) == (None, "bob")


def test_the_log_names_clients_and_none_of_their_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    known = Keys(str(keys(tmp_path / "keys", alice=ALICE, bob=BOB)), clock=clock)
    for clock.now in range(10):
        known.holder(b"")
    assert [record.getMessage() for record in caplog.records] == ["keys of alice, bob"]
    keys(tmp_path / "keys")
    clock.now = 20
    assert not known.exist()
    assert caplog.records[-1].getMessage() == "keys of nobody: all requests are refused"


def test_a_rate_allows_its_number_at_once_and_then_one_by_one() -> None:
    clock = Clock()
    rate = Rate(6, clock)
    assert [rate.wait("a") for _ in range(7)] == [0.0] * 6 + [10.0]
    assert rate.wait("b") == 0
    clock.now = 9.5
    assert rate.wait("a") == pytest.approx(0.5)
    clock.now = 10.0
    assert (rate.wait("a"), rate.wait("a")) == (0.0, pytest.approx(10))
    clock.now = 1000.0
    assert [rate.wait("a") for _ in range(7)].count(0.0) == 6
    assert {Rate(None, clock).wait("a") for _ in range(1000)} == {0.0}


class Guarded:
    """A guarded app that records what reaches it.

    Attributes:
        scopes: of the requests that reached it.
        bodies: of the same.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, **policy: Any) -> None:
        whole = {"keys": str(directory), "paths": {"/v1/models": "GET", "/classify": "POST"}, "max_body_bytes": 10}
        whole |= {"body_seconds": 0.05, "requests_per_minute": None, "port": 0, "drain_seconds": 0, **policy}
        monkeypatch.setenv(guard.VARIABLE, json.dumps(whole))
        self.guard = Guard(self._app)
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(self, path: str, method: str = "GET", messages: list[Any] | None = None, **scope: Any) -> int:
        """The status that the client gets; 0 if it gets none."""
        left, statuses = list(messages or [{"type": "http.request", "body": b""}]), [0]

        async def receive() -> Any:
            return left.pop(0) if left else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            statuses.append(message.get("status", statuses[-1]))

        headers = [(b"authorization", f"Bearer {ALICE}".encode())]
        whole = {"type": "http", "path": path, "method": method, "headers": headers, **scope}
        await self.guard(whole, receive, send)
        return statuses[-1]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Guarded:
    """A guarded app with one client."""
    return Guarded(monkeypatch, keys(tmp_path / "keys", alice=ALICE))


async def test_what_was_compared_is_what_the_app_gets(app: Guarded) -> None:
    assert await app.ask("/api/v1/models", root_path="/api", raw_path=b"/api/v1/%6dodels") == 200
    (scope,) = app.scopes
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/v1/models", b"/v1/models", "")
    for path, root in (("/health/v1/models", "/health"), ("/apiv1/models", "/api"), ("/v1/models", "/v1/models")):
        assert await app.ask(path, root_path=root, headers=[]) == 401
    assert len(app.scopes) == 1


async def test_a_request_reaches_the_app_once_all_of_it_is_there(app: Guarded) -> None:
    pieces = [{"type": "http.request", "body": b"12345", "more_body": True} for _ in range(3)]
    end = {"type": "http.request", "body": b"6", "more_body": False}
    assert await app.ask("/classify", "POST", [pieces[0], end]) == 200
    assert app.bodies == [b"123456"]
    assert await app.ask("/classify", "POST", pieces) == 413
    assert await app.ask("/classify", "POST", pieces[:1]) == 408
    assert await app.ask("/classify", "POST", [pieces[0], {"type": "http.disconnect"}]) == 0
    for length in (b"11", b"-1", b"1" * 5000, b"0x1"):
        bearer = (b"authorization", f"Bearer {ALICE}".encode())
        assert await app.ask("/classify", "POST", [end], headers=[bearer, (b"content-length", length)]) == 413
    assert len(app.bodies) == 1


async def test_what_is_neither_a_request_nor_the_lifespan_is_ignored(app: Guarded) -> None:
    assert await app.ask("/v1/models", type="other") == 0
    assert app.scopes == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": null}', '{"keys": null, "unknown": 1}'])
def test_a_broken_policy_ends_the_server(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guard.VARIABLE, text)
    with pytest.raises((ValueError, TypeError)):
        Guard(lambda scope, receive, send: asyncio.sleep(0))
    monkeypatch.delenv(guard.VARIABLE)
    with pytest.raises(KeyError):
        Guard(lambda scope, receive, send: asyncio.sleep(0))
