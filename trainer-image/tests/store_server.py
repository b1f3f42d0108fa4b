"""An S3-compatible store on loopback: moto's, with connections that are cut, answers that lie and credentials."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

BUCKET = "team"
Start = Callable[..., Any]


@dataclass
class Store:
    """What the server has, how it misbehaves, and what it was requests for.

    Attributes:
        url: its address.
        cut_after: after so many bytes of an object the connection is closed, once.
        error: status and code that every request is answered with; None: as it should be.
        redirect: where every request is sent.
        whole: whether a request for a part of an object is answered with all of it.
        listed: keys that a listing has, instead of those that exist; each has one byte.
        sent: bytes of objects that were sent, by key.
        requests: method and path of each.
        signed: what signs each of them.
    """

    url: str = ""
    cut_after: int | None = None
    error: tuple[int, str] | None = None
    redirect: str | None = None
    whole: bool = False
    listed: list[str] | None = None
    sent: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)

    def put(self, objects: dict[str, bytes]) -> None:
        """Replace what is in the bucket."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        backend.reset()
        backend.create_bucket(BUCKET, "us-east-1")
        for key, content in objects.items():
            backend.put_object(BUCKET, key, content)

    def objects(self) -> dict[str, bytes]:
        """What is in the bucket now."""
        from moto.s3.models import s3_backends

        bucket = s3_backends["123456789012"]["aws"].buckets[BUCKET]
        return {key: bytes(bucket.keys[key].value) for key in bucket.keys}

    def __call__(self, environ: dict[str, Any], start: Start, inner: Callable[..., Iterable[bytes]]) -> Iterable[bytes]:
        """Answer one request."""
        key = environ["PATH_INFO"].removeprefix(f"/{BUCKET}").removeprefix("/")
        self.signed.append(environ.get("HTTP_AUTHORIZATION", ""))
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.redirect is not None:
            start("307 Temporary Redirect", [("Location", self.redirect), ("Content-Length", "0")])
            return []
        if self.error is not None:
            status, code = self.error
            body = f"<Error><Code>{code}</Code><Message>secret words</Message></Error>".encode()
            start(f"{status} Error", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        if self.listed is not None and not key:
            return self._listing(start)
        if self.whole:
            environ.pop("HTTP_RANGE", None)
        answer = inner(environ, start)
        return answer if not key or environ["REQUEST_METHOD"] == "HEAD" else self._object(key, answer)

    def _listing(self, start: Start) -> list[bytes]:
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>1</Size><ETag>x</ETag></Contents>" for key in self.listed or []
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()
        start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def _object(self, key: str, answer: Iterable[bytes]) -> list[bytes]:
        content = b"".join(answer)
        if self.cut_after is not None:
            content, self.cut_after = content[: self.cut_after], None
        self.sent[key] = self.sent.get(key, 0) + len(content)
        return [content]


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Store]:
    """Serve an empty store on a free port of loopback, or of another address of this machine."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any, **__: Any) -> None:
            """Nothing."""

    store, backend = Store(), DomainDispatcherApplication(create_backend_app)
    server = make_server(host, 0, lambda e, s: store(e, s, backend), threaded=True, request_handler=Quiet)
    store.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
