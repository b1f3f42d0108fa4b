"""Files of HTTPS servers: what has the digest of the spec, and nothing from private addresses."""

import datetime
import hashlib
import ipaddress
import logging
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hone.contract.runconfig import Download
from hone_trainer.downloads import https
from hone_trainer.downloads.download import ensure_downloaded
from hone_trainer.downloads.remote import Unreachable
from hone_trainer.protocol import addresses
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.logs import setup_logging

pytestmark = pytest.mark.slow
ROWS = b'{"prompt": "a", "completion": "b"}\n' * 40_000
DIGEST = hashlib.sha256(ROWS).hexdigest()


@dataclass
class Site:
    """What the server has, and how it misbehaves.

    Attributes:
        url: its address.
        cut_after: after so many bytes the connection is closed, once.
        status: what every request is answered with; None: as it should be.
        redirect: where every request is sent.
        endless: whether the answer has no length and no end.
        sent: bytes that were sent.
    """

    url: str = ""
    cut_after: int | None = None
    status: int | None = None
    redirect: str | None = None
    endless: bool = False
    sent: int = 0


def certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(host, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = directory / "site.pem"
    path.write_bytes(signed.public_bytes(pem) + secret)
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server on loopback, which counts as public, with a certificate that is trusted."""
    pem, state = certificate(tmp_path), Site()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            answer(self, state)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"https://127.0.0.1:{server.server_address[1]}"
    is_public = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda text: text == "127.0.0.1" or is_public(text))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def answer(request: BaseHTTPRequestHandler, site: Site) -> None:
    """Answer one request."""
    begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    request.send_response(site.status or (302 if site.redirect else 206 if begin else 200))
    if site.redirect:
        request.send_header("Location", site.redirect)
    part = b"" if site.status or site.redirect else ROWS[begin:]
    if not site.endless:
        request.send_header("Content-Length", str(len(part)))
    if begin:
        request.send_header("Content-Range", f"bytes {begin}-{len(ROWS) - 1}/{len(ROWS)}")
    request.end_headers()
    if site.cut_after is not None:
        part, site.cut_after = part[: site.cut_after], None
    site.sent += len(part)
    request.wfile.write(part)
    while site.endless:
        try:
            request.wfile.write(ROWS)
        except OSError:
            return


def fetch(site: Site, workspace: Path, path: str = "/rows.jsonl?signature=secret", digest: str = DIGEST) -> Path:
    """Download it as a run does; returns its directory."""
    into = workspace / "data" / "a-train"
    entry = Download(field="spec.dataset.train", uri=site.url + path, downloaded=str(into), sha256=digest, is_data=True)
    ensure_downloaded(entry)
    return into / "rows"


def test_a_file_is_downloaded_once_under_its_name(site: Site, tmp_path: Path) -> None:
    rows = fetch(site, tmp_path)
    assert (rows / "rows.jsonl").read_bytes() == ROWS
    fetch(site, tmp_path)
    assert site.sent == len(ROWS)


def test_an_edited_field_is_another_download(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path)
    with pytest.raises(BadInput, match="digest"):
        fetch(site, tmp_path, digest="0" * 64)
    assert [path.name for path in fetch(site, tmp_path, "/other.jsonl").iterdir()] == ["other.jsonl"]


def test_no_log_and_no_result_has_the_query_of_a_url(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        setup_logging()
        into = tmp_path / "data" / "a-train"
        uri = f"{site.url}/rows.jsonl?signature=secret"
        entry = Download(field="spec.dataset.train", uri=uri, downloaded=str(into), sha256=DIGEST, is_data=True)
        result = ensure_downloaded(entry)
    finally:
        root.handlers, root.level = handlers, level
    output = capsys.readouterr().out
    assert "Downloaded" in output
    assert "secret" not in output
    assert result.uri == f"{site.url}/rows.jsonl"
    assert "secret" not in (into / "MANIFEST.json").read_text()


def test_a_download_that_was_cut_resumes(site: Site, tmp_path: Path) -> None:
    site.cut_after = len(ROWS) // 2
    assert (fetch(site, tmp_path) / "rows.jsonl").read_bytes() == ROWS
    assert site.sent == len(ROWS), "bytes were sent twice"


def test_another_digest_is_refused_and_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=DIGEST) as caught:
        fetch(site, tmp_path, digest="0" * 64)
    assert caught.value.field == "spec.dataset.train.sha256"
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "may not be read without a login"),
        (403, "may not be read without a login"),
        (404, "does not exist"),
        (410, "does not exist"),
        (418, "answered with status 418"),
    ],
)
def test_what_the_server_refuses_is_told_apart(site: Site, tmp_path: Path, status: int, words: str) -> None:
    site.status = status
    with pytest.raises(BadInput, match=words) as caught:
        fetch(site, tmp_path)
    assert caught.value.field == "spec.dataset.train.uri"
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_server_error_may_pass(site: Site, tmp_path: Path) -> None:
    site.status = 503
    with pytest.raises(Unreachable, match="status 503"):
        fetch(site, tmp_path)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("https://169.254.169.254/latest/meta-data", "no public address"),
        ("https://[::1]:6443/api", "no public address"),
        ("https://[::ffff:10.96.0.1]/api", "no public address"),
        ("https://[64:ff9b::a9fe:a9fe]/", "no public address"),
        ("http://127.0.0.1/rows.jsonl", "leads to http://127.0.0.1"),
        ("file:///etc/passwd", "leads to"),
    ],
)
def test_redirects_lead_neither_to_private_addresses_nor_out_of_https(
    site: Site, tmp_path: Path, target: str, words: str
) -> None:
    site.redirect = target
    with pytest.raises(BadInput, match=words):
        fetch(site, tmp_path)


def test_redirects_end(site: Site, tmp_path: Path) -> None:
    site.redirect = f"{site.url}/again"
    with pytest.raises(BadInput, match="redirects more than 5 times"):
        fetch(site, tmp_path)


def test_an_answer_without_end_does_not_fill_the_workspace(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.endless = True
    usage = type("Usage", (), {"free": https._RESERVE + (4 << 20)})
    monkeypatch.setattr(https.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BadInput, match="or more to be downloaded") as caught:
        fetch(site, tmp_path)
    assert caught.value.field == "spec.workspace.size"
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.part")) <= 4 << 20


@pytest.mark.parametrize("path", ["/%2e%2e", "/a%2Fb%2F..", "/.hidden", "/a%00b", f"/{'a' * 300}"])
def test_a_name_in_the_url_stays_in_its_directory(site: Site, tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInput, match="the name"):
        fetch(site, tmp_path, path)
    assert site.sent == 0
