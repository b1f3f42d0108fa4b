"""Servers on loopback that take a published model: a hub that takes commits, and an OCI registry."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LARGE = ".safetensors"


@dataclass
class Destination:
    """What a server holds, and how it misbehaves.

    Attributes:
        url: its address.
        token: what a request must have; None: nothing.
        refuse: status and words that requests of a method are answered with, by method.
        cut_after: after so many bytes of a large body the connection is closed, once.
        lies: whether what is stored is reported with other digests.
        requests: method and path of each request.
    """

    url: str = ""
    token: str | None = None
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut_after: int | None = None
    lies: bool = False
    requests: list[str] = field(default_factory=list)


@dataclass
class Hub(Destination):
    """A hub with the repository acme/tuned, unless it is None.

    Attributes:
        files: the files of the branch.
        commits: names of the commits, oldest first.
        objects: large files that have arrived, by digest.
    """

    files: dict[str, bytes] | None = None
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    objects: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Registry(Destination):
    """A registry with one repository.

    Attributes:
        blobs: by digest.
        manifests: by digest and by tag.
        uses_tokens: whether it wants tokens of its own instead of user and password.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    uses_tokens: bool = False


@contextmanager
def serving(destination: Destination) -> Iterator[Any]:
    """Serve it on a free port of loopback."""
    kind = _HubHandler if isinstance(destination, Hub) else _RegistryHandler
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (kind,), {"served": destination}))
    server.daemon_threads = True
    destination.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield destination
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def handle_one(self) -> None:
        """Answer a request, unless it is refused."""
        served = self.served
        served.requests.append(f"{self.command} {urlsplit(self.path).path}")
        if self.command in served.refuse:
            self._body()
            status, words = served.refuse[self.command]
            return self.answer(status, words.encode(), {"X-Error-Message": words})
        if not self.is_admitted():
            return None
        return self.route(urlsplit(self.path).path)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one

    def is_admitted(self) -> bool:
        raise NotImplementedError

    def route(self, path: str) -> None:
        raise NotImplementedError

    def _body(self) -> bytes | None:
        """The body; None if the connection was cut on the way."""
        size = int(self.headers.get("Content-Length") or 0)
        cut = self.served.cut_after
        if cut is not None and size > cut:
            self.served.cut_after = None
            self.rfile.read(cut)
            self.close_connection = True
            self.connection.close()
            return None
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(size)

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, content: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


class _HubHandler(_Handler):
    served: Hub

    def is_admitted(self) -> bool:
        token = self.served.token
        if token is None or self.path.startswith("/lfs/") or self.headers.get("Authorization") == f"Bearer {token}":
            return True
        self._body()
        self.answer(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        return False

    def route(self, path: str) -> None:
        hub = self.served
        if path == "/api/repos/create":
            self._body()
            status, hub.files = (409, hub.files) if hub.files is not None else (200, {})
            return self.json({"url": f"{hub.url}/acme/tuned", "name": "acme/tuned"}, status)
        if path == "/api/validate-yaml":
            self._body()
            return self.json({"errors": [], "warnings": []})
        if hub.files is None:
            self._body()
            return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        if path.startswith("/api/models/acme/tuned/preupload/"):
            names = [each["path"] for each in json.loads(self._body() or b"")["files"]]
            mode = {True: "lfs", False: "regular"}
            entries = [{"path": name, "uploadMode": mode[name.endswith(LARGE)]} for name in names]
            return self.json({"files": [{**entry, "shouldIgnore": False, "oid": None} for entry in entries]})
        if path == "/acme/tuned.git/info/lfs/objects/batch":
            return self._batch()
        if path.startswith("/lfs/"):
            if (body := self._body()) is not None:
                hub.objects[path.rpartition("/")[2]] = body
                self.answer(200)
            return None
        if path == "/api/models/acme/tuned/commit/main":
            return self._commit()
        if re.fullmatch(r"/api/models/acme/tuned/revision/\w+", path):
            return self.json({"id": "acme/tuned", "sha": hub.commits[-1], "siblings": self._siblings()})
        if match := re.fullmatch(r"/acme/tuned/resolve/\w+/(.+)", path):
            return self._file(hub.files[match[1]])
        return self.answer(404)

    def _batch(self) -> None:
        objects = json.loads(self._body() or b"")["objects"]
        for each in objects:
            if each["oid"] not in self.served.objects:
                each["actions"] = {"upload": {"href": f"{self.served.url}/lfs/{each['oid']}"}}
        self.json({"transfer": "basic", "objects": objects})

    def _commit(self) -> None:
        hub = self.served
        assert hub.files is not None
        after = dict(hub.files)
        for line in (self._body() or b"").splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                after[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                after[value["path"]] = hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del after[value["path"]]
        hub.files = after
        hub.commits.append(f"{len(hub.commits):040x}")
        self.json({"success": True, "commitUrl": f"{hub.url}/acme/tuned/commit/x", "commitOid": hub.commits[-1]})

    def _siblings(self) -> list[dict[str, Any]]:
        entries = []
        for name, data in sorted((self.served.files or {}).items()):
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
            if name.endswith(LARGE):
                digest = hashlib.sha256(b"other" if self.served.lies else data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            entries.append(entry)
        return entries

    def _file(self, data: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.served.commits[-1]}
        self.answer(200, data, headers)


class _RegistryHandler(_Handler):
    served: Registry

    def is_admitted(self) -> bool:
        registry = self.served
        if registry.token is None:
            return True
        sent = self.headers.get("Authorization")
        basic = "Basic " + base64.b64encode(f"robot:{registry.token}".encode()).decode()
        if urlsplit(self.path).path == "/token":
            if sent != basic:
                self.answer(401)
                return False
            return True
        if sent == ("Bearer issued" if registry.uses_tokens else basic):
            return True
        self._body()
        realm = f'Bearer realm="{registry.url}/token",service="registry",scope="repository:acme/tuned:push"'
        self.answer(401, headers={"WWW-Authenticate": realm if registry.uses_tokens else 'Basic realm="registry"'})
        return False

    def route(self, path: str) -> None:
        registry, base = self.served, "/v2/acme/tuned"
        if path == "/token":
            return self.json({"token": "issued"})
        if not path.startswith(base):
            self._body()
            return self.answer(404)
        path = path.removeprefix(base)
        if path == "/blobs/uploads/":
            return self.answer(202, headers={"Location": f"{base}/blobs/uploads/1?state=x"})
        if path == "/blobs/uploads/1":
            digest = parse_qs(urlsplit(self.path).query)["digest"][0]
            if (body := self._body()) is None:
                return None
            if registry.lies or f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
                return self.json({"errors": [{"code": "DIGEST_INVALID"}]}, 400)
            registry.blobs[digest] = body
            return self.answer(201)
        kind, _, name = path.removeprefix("/").partition("/")
        if self.command == "PUT":
            content = registry.manifests[name] = self._body() or b""
            registry.manifests[f"sha256:{hashlib.sha256(content).hexdigest()}"] = content
            return self.answer(201)
        content = (registry.blobs if kind == "blobs" else registry.manifests).get(name)
        return self.answer(404) if content is None else self.answer(200, content)
