"""Ways around the key, parsed as HTTP by h11: nothing behind the guard is reached. With sockets: tests/integration."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h11
import pytest

from hone import guard
from hone.core.modeldeployment.resources.access import PATHS
from hone.guard.access import Guard
from tests.ways_around_keys import ALICE, BOB, CHAT, KEY, WAYS, request

BODY_BYTES = 1 << 20


class Behind:
    """An app behind the guard.

    Attributes:
        reached: the paths that it was asked for.
        statuses: of all answers.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, key in {"alice": ALICE, "bob": BOB, "small": "short"}.items():
            (directory / name).write_text(key)
        policy = {"keys": str(directory), "paths": PATHS["Chat"], "max_body_bytes": BODY_BYTES, "body_seconds": 0.05}
        policy |= {"requests_per_minute": None, "port": 0, "drain_seconds": 0}
        monkeypatch.setenv(guard.VARIABLE, json.dumps(policy))
        self._guard = Guard(self._app)
        self.reached: list[str] = []
        self.statuses: list[int] = []

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["path"])
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(self, data: bytes) -> None:
        """All requests that are in these bytes, as a server reads them; what is no HTTP ends the connection."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
        connection.receive_data(data)
        connection.receive_data(b"")
        try:
            while isinstance(head := connection.next_event(), h11.Request):
                await self._ask(head, _body(connection))
                connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
        except h11.ProtocolError:
            return

    async def _ask(self, head: h11.Request, messages: list[Any]) -> None:
        path, _, query = head.target.partition(b"?")
        scope = {"type": "http", "method": head.method.decode(), "path": unquote(path.decode("ascii"))}
        scope |= {"raw_path": path, "query_string": query, "root_path": "", "headers": list(head.headers)}
        if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in head.headers):
            scope["type"] = "websocket"

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.statuses += [message["status"]] if "status" in message else []

        await self._guard(scope, receive, send)


def _body(connection: h11.Connection) -> list[Any]:
    """The messages of a body, as ASGI has them."""
    messages: list[Any] = []
    while isinstance(event := connection.next_event(), h11.Data):
        messages.append({"type": "http.request", "body": bytes(event.data), "more_body": True})
    return [*messages, {"type": "http.request", "body": b"", "more_body": False}]


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Behind:
    return Behind(tmp_path, monkeypatch)


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_but_the_health_is_reached(way: str, behind: Behind) -> None:
    await behind.send(WAYS[way])
    assert set(behind.reached) <= {"/health"}
    assert behind.statuses.count(200) == len(behind.reached)


async def test_the_same_requests_with_a_key_are_answered(behind: Behind) -> None:
    await behind.send(request(CHAT, KEY, b"POST", b"{}") + request(headers=KEY) + request(b"/health"))
    assert behind.reached == [CHAT.decode(), "/v1/models", "/health"]
    assert behind.statuses == [200, 200, 200]


async def test_most_ways_are_refused_by_the_guard_and_not_by_the_parser(behind: Behind) -> None:
    """Else the list would show nothing."""
    for way in WAYS.values():
        await behind.send(way)
    assert len(WAYS) > 80
    assert len([status for status in behind.statuses if status in (401, 404, 405, 413)]) > 75
