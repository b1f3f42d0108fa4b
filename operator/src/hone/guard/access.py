"""The guard of a vLLM server: who may ask it, for what, how often, and with how much. An ASGI middleware.

vLLM loads it with `--middleware=hone_guard.Guard`, as its outermost middleware. Only the standard library and uvicorn,
which vLLM runs on, are imported. The policy is in the environment variable HONE_GUARD.

- The paths of the server's API are answered with a key, `/health` without, and all others not at all. What was compared
  is what vLLM's router gets: the path after decoding, without the root path.
- Keys are files of a mounted Secret: the name is the client's, the content its key. They are read again while the
  server runs. No files, or none that can be read: nobody is admitted.
- A request reaches vLLM once all of its body is here, and is not too large or too slow.
- Before it stops, the server has its clients connect elsewhere: the kubelet's preStop hook asks for `/drain`, and
  until that is answered each answer ends its connection, so that no request comes on a connection that is about to end.
- Metrics, and whether there are keys, are on a port of their own, which needs no key: a NetworkPolicy is to guard it.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH, METRICS, READY, DRAIN = "/health", "/metrics", "/ready", "/drain"
INNER = {METRICS: METRICS, READY: HEALTH}
"""vLLM's path for each path of the second port."""
STOPS_SECONDS = 60.0
"""How soon after its preStop hook a server is certain to have been stopped: then connections last again."""
REREAD_SECONDS = 1.0
"""How soon after a change of the directory a key counts, or no longer counts."""
MIN_KEY, MAX_KEY = 16, 4096
"""Bytes of a key."""
VLLM_KEY = "VLLM_API_KEY"
"""vLLM's own key, where the user sets one: it counts as well, and vLLM gets it with every request that is admitted."""

log = logging.getLogger("hone.guard")


@dataclass(frozen=True)
class Policy:
    """What is allowed; see `hone.core.modeldeployment.resources.access`.

    Attributes:
        keys: directory of the keys; None: no key is needed.
        paths: the method of each path that is answered.
        max_body_bytes: of a request.
        body_seconds: until all of a body must be here.
        requests_per_minute: of one key; None: as many as it likes.
        port: of metrics and readiness.
        drain_seconds: how long `/drain` takes: until no more requests come, since the pod is no longer an endpoint.
    """

    keys: str | None
    paths: Mapping[str, str]
    max_body_bytes: int
    body_seconds: float
    requests_per_minute: int | None
    port: int
    drain_seconds: float

    @classmethod
    def of(cls, text: str) -> "Policy":
        """The policy from its JSON.

        Raises:
            ValueError, TypeError: it is none; the server does not start then.
        """
        return cls(**json.loads(text))


class Keys:
    """The keys of a directory, and whose they are."""

    def __init__(self, directory: str, own: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`own`: vLLM's own key."""
        self._directory, self._own, self._clock = Path(directory), own, clock
        self._read_at, self._digests, self._problems = float("-inf"), dict[str, bytes](), list[str]()

    def holder(self, key: bytes) -> str | None:
        """The name of the client with this key. Takes as long for one key as for another."""
        digest, holder = hashlib.sha256(key).digest(), None
        for name, known in self._current().items():
            if hmac.compare_digest(known, digest):
                holder = name
        return holder

    def exist(self) -> bool:
        """Whether anybody could be admitted."""
        return bool(self._current())

    def _current(self) -> Mapping[str, bytes]:
        now = self._clock()
        if now - self._read_at >= REREAD_SECONDS:
            before, self._problems = (self._digests, self._problems), []
            self._digests, self._read_at = dict(self._read()), now
            if before != (self._digests, self._problems):
                self._report()
        return self._digests

    def _report(self) -> None:
        """Log whose keys there are; nothing of the keys."""
        names = ", ".join(sorted(self._digests)) or "nobody: all requests are refused"
        log.warning("keys of %s%s", names, "".join(f"; {problem}" for problem in self._problems))

    def _read(self) -> Iterator[tuple[str, bytes]]:
        """Digests by names. The kubelet replaces all files at once; the names of its own begin with two dots."""
        if self._own:
            yield VLLM_KEY, hashlib.sha256(self._own.encode()).digest()
        try:
            names = sorted(entry.name for entry in self._directory.iterdir() if not entry.name.startswith(".."))
        except OSError as error:
            self._problems.append(str(error))
            return
        for name in names:
            if key := self._key(name):
                yield name, hashlib.sha256(key).digest()

    def _key(self, name: str) -> bytes | None:
        try:
            with (self._directory / name).open("rb") as file:
                key = file.read(MAX_KEY + 1).strip()
        except OSError as error:
            self._problems.append(str(error))
            return None
        if not MIN_KEY <= len(key) <= MAX_KEY:
            self._problems.append(f"{name!r} does not count: a key has {MIN_KEY} to {MAX_KEY} bytes")
            return None
        return key


class Rate:
    """So many requests per minute of each name; as many at once after a minute's pause."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, name: str) -> float:
        """Counts a request; 0 if it is allowed, else the seconds until the next one is."""
        if self._per_minute is None:
            return 0.0
        now, each = self._clock(), self._per_minute / 60
        left, since = self._left.get(name, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * each)
        allowed = left >= 1
        self._left[name] = (left - allowed, now)
        return 0.0 if allowed else (1 - left) / each


class Refusal(Exception):
    """A request that is not passed on."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class Guard:
    """The middleware."""

    def __init__(self, app: App) -> None:
        """Reads the policy.

        Raises:
            KeyError, ValueError, TypeError: there is none, or it is broken; the server does not start then.
        """
        self._app, self._policy = app, Policy.of(os.environ["HONE_GUARD"])
        self._own = (os.environ.get(VLLM_KEY) or None) if self._policy.keys else None
        self._keys = Keys(self._policy.keys, self._own) if self._policy.keys else None
        self._rate = Rate(self._policy.requests_per_minute)
        self._root: Any = None
        self._drains_until = float("-inf")
        self._metrics: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan of the server."""
        if scope["type"] == "lifespan":
            self._root = scope.get("app")
            if self._metrics is None:
                self._metrics = asyncio.create_task(self._serve_metrics())
                self._metrics.add_done_callback(_ended)
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                admitted = await self._admit(scope, receive)
            except Refusal as refusal:
                await _refuse(refusal, send)
            else:
                if admitted:
                    await self._app(*admitted, _last(send) if time.monotonic() < self._drains_until else send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _admit(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive] | None:
        """What vLLM gets of a request; None if the client has gone.

        Raises:
            Refusal: it gets nothing.
        """
        path, method = _route(scope), scope["method"]
        routed = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        if path == HEALTH and method == "GET":
            return routed, _replay(b"", receive)
        name = self._name(scope)
        allowed = self._policy.paths.get(path)
        if allowed is None:
            raise Refusal(404, f"this server answers {', '.join(self._policy.paths)}")
        if method != allowed and not (self._keys is None and method == "OPTIONS"):
            raise Refusal(405, f"use {allowed}", {"allow": allowed})
        if seconds := self._rate.wait(name):
            message = f"no more than {self._policy.requests_per_minute} requests per minute"
            raise Refusal(429, message, {"retry-after": str(int(seconds) + 1)})
        if self._own:
            routed["headers"] = [*_without_key(scope), (b"authorization", f"Bearer {self._own}".encode())]
        body = await self._body(scope, receive)
        return None if body is None else (routed, _replay(body, receive))

    def _name(self, scope: Scope) -> str:
        """Whose key the request has.

        Raises:
            Refusal: it has none.
        """
        if self._keys is None:
            return ""
        key = _bearer(scope)
        name = self._keys.holder(key) if key else None
        if name is None:
            message = "this server needs a key: send the header 'Authorization: Bearer <key>'"
            raise Refusal(401, message, {"www-authenticate": "Bearer"})
        return name

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """All of the request's body; None if the client has gone.

        Raises:
            Refusal: it is too large, or comes too slowly.
        """
        limit = self._policy.max_body_bytes
        too_large = Refusal(413, f"a request may have {limit} bytes")
        announced = _header(scope, b"content-length") or b"0"
        if not announced.isdigit() or int(announced[:20]) > limit:
            raise too_large
        parts, size, more = list[bytes](), 0, True
        try:
            async with asyncio.timeout(self._policy.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size, more = size + len(parts[-1]), message.get("more_body", False)
                    if size > limit:
                        raise too_large
        except TimeoutError:
            raise Refusal(408, f"the request was not complete within {self._policy.body_seconds:g} s") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _serve_metrics(self) -> None:
        """Serve metrics and readiness. With several processes, all listen on the port, and the kernel chooses one."""
        import uvicorn

        options: dict[str, Any] = {"interface": "asgi3", "lifespan": "off", "ws": "none", "access_log": False}
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(("0.0.0.0", self._policy.port))
            server = uvicorn.Server(uvicorn.Config(self._answer_metrics, log_config=None, **options))
            server.capture_signals = contextlib.nullcontext  # They are vLLM's.
            await server.serve(sockets=[listening])

    async def _answer_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["method"] == "GET" else ""
        inner = INNER.get(path)
        if path == DRAIN:
            self._drains_until = time.monotonic() + self._policy.drain_seconds + STOPS_SECONDS
            await asyncio.sleep(self._policy.drain_seconds)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif inner is None:
            await _refuse(Refusal(404, f"this port answers GET {METRICS}, {READY} and {DRAIN}"), send)
        elif path == READY and self._keys is not None and not self._keys.exist():
            await _refuse(Refusal(503, "there are no keys, so that all requests are refused"), send)
        else:
            own = {"path": inner, "raw_path": inner.encode(), "root_path": "", "app": self._root}
            await self._app({**scope, **own, "headers": _without_key(scope)}, _replay(b"", receive), send)


def _ended(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("metrics and readiness are not served: %s", error)


def _route(scope: Scope) -> str:
    """The path as vLLM's router has it."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _without_key(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in scope["headers"] if name != b"authorization"]


def _header(scope: Scope, sought: bytes) -> bytes | None:
    """The header's value; None if it is absent or there are several."""
    values = [value for name, value in scope["headers"] if name == sought]
    return values[0] if len(values) == 1 else None


def _bearer(scope: Scope) -> bytes | None:
    """The key in the Authorization header."""
    scheme, _, key = (_header(scope, b"authorization") or b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then what comes from the client: that it has gone."""
    first = [body]

    async def replay() -> Message:
        if first:
            return {"type": "http.request", "body": first.pop(), "more_body": False}
        return await receive()

    return replay


def _last(send: Send) -> Send:
    """What ends the connection after the answer."""

    async def last(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
            message = {**message, "headers": [*others, (b"connection", b"close")]}
        await send(message)

    return last


async def _refuse(refusal: Refusal, send: Send) -> None:
    """Answer as OpenAI's API does, and end the connection: what is left of the body is not read."""
    error = {"message": str(refusal), "type": "invalid_request_error", "code": refusal.status}
    body = json.dumps({"error": error}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    pairs = [(name.encode(), value.encode()) for name, value in {**headers, **refusal.headers}.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
