"""A server on loopback that answers as the Hugging Face Hub does, as far as huggingface_hub asks for a repository."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT, LATER = "1" * 40, "2" * 40
_LARGE = (".safetensors", ".parquet")


@dataclass
class Hub:
    """What the server has, how it misbehaves, and what it was asked for.

    Attributes:
        url: its address.
        commits: the files of each commit.
        branch: the commit of the branch main.
        token: what a request must have; None: nothing.
        gated: whether access has to be granted.
        cut_after: after so many bytes of a large file the connection is closed, once.
        status: what every request is answered with; None: as it should be.
        redirect: where large files are to be had.
        lies: whether the listed digests of large files are wrong.
        configs: `configs` of the README of a data set.
        sent: bytes of files that were sent, by name.
    """

    url: str = ""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branch: str = COMMIT
    token: str | None = None
    gated: bool = False
    cut_after: int | None = None
    status: int | None = None
    redirect: str | None = None
    lies: bool = False
    configs: list[dict[str, Any]] | None = None
    sent: dict[str, int] = field(default_factory=dict)

    def siblings(self, commit: str) -> list[dict[str, Any]]:
        """The files of a commit as the Hub lists them."""
        return [self._sibling(name, data) for name, data in sorted(self.commits[commit].items())]

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
        if name.endswith(_LARGE):
            digest = hashlib.sha256(b"other" if self.lies else data).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
        return entry


@contextmanager
def serving(hub: Hub, host: str = "127.0.0.1") -> Iterator[Hub]:
    """Serve the hub on a free port of loopback, or of another address of this machine."""
    server = ThreadingHTTPServer((host, 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def _answer(self, head: bool) -> None:
        hub = self.hub
        if hub.status is not None:
            return self._error(hub.status)
        if hub.token is not None:
            authorization = self.headers.get("Authorization")
            if authorization is None:
                return self._error(401, "RepoNotFound")
            if authorization != f"Bearer {hub.token}":
                return self._error(401, message="Invalid credentials in Authorization header")
        if hub.gated:
            return self._error(403, "GatedRepo")
        path = self.path.partition("?")[0]
        if match := re.fullmatch(
            r"/api/(?:models/acme/tiny|datasets/acme/rows)(?:/revision/([^/]+)|/tree/([^/]+))?", path
        ):
            return self._listing(match[1] or match[2] or "main", is_tree=match[2] is not None)
        if match := re.fullmatch(r"/(?:acme/tiny|datasets/acme/rows)/resolve/([^/]+)/(.+)", path):
            return self._file(match[1], match[2], head)
        return self._error(404, "RepoNotFound")

    def _listing(self, revision: str, is_tree: bool) -> None:
        commit = self.hub.branch if revision == "main" else revision
        if commit not in self.hub.commits:
            return self._error(404, "RevisionNotFound")
        files = self.hub.siblings(commit)
        if is_tree:
            entries = [{"type": "file", "path": e["rfilename"], "size": e["size"], "oid": e["blobId"]} for e in files]
            return self._json(entries)
        card = {"cardData": {"configs": self.hub.configs}} if self.hub.configs else {}
        return self._json({"id": "acme/tiny", "sha": commit, "siblings": files, "private": False, **card})

    def _file(self, commit: str, name: str, head: bool) -> None:
        hub = self.hub
        data = hub.commits.get(commit, {}).get(name)
        if data is None:
            return self._error(404, "EntryNotFound")
        if hub.redirect and name.endswith(_LARGE) and not head:
            self.send_response(302)
            self.send_header("Location", hub.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        begin = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if head:
            return None
        part = data[begin:]
        if hub.cut_after is not None and name.endswith(_LARGE):
            part, hub.cut_after = part[: hub.cut_after], None
            self.close_connection = True
        self.wfile.write(part)
        hub.sent[name] = hub.sent.get(name, 0) + len(part)
        return None

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str = "", message: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()
