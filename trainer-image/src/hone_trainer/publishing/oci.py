"""Copies to an OCI registry, as an image whose file system is the model, which pods can mount as an image volume.

All blobs first, then the manifest by its digest, then the tag: what a tag names is whole. Layers are tar archives that
are the same bytes each time, so that an attempt sends only those that the registry does not have. They are not
compressed, because weights hardly shrink, and are made while they are sent.
"""

import base64
import hashlib
import json
import logging
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from hone.contract.results import PublishedModel
from hone.contract.runconfig import Publication
from hone_trainer.publishing import failures
from hone_trainer.publishing.bundle import Bundle, CopiedFile
from hone_trainer.publishing.client import client

if TYPE_CHECKING:
    import httpx2

MANIFEST, CONFIG = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LARGE_BYTES = 64 << 20
"""A file of this size has a layer of its own; all smaller ones share one. File systems take about 100 layers."""
_BLOCK, _RECORD = 1 << 20, 512
_LOCAL = ("localhost", "127.0.0.1", "::1")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

log = logging.getLogger(__name__)
Headers = Mapping[str, str]


@dataclass(frozen=True)
class Layer:
    """A tar archive of some files: it can be read again and again, and is never held in memory."""

    files: Sequence[CopiedFile]

    def __iter__(self) -> Iterator[bytes]:
        for file in self.files:
            yield _header(file)
            with file.open() as content:
                while block := content.read(_BLOCK):
                    yield block
            yield b"\0" * (-file.size % _RECORD)
        yield b"\0" * (2 * _RECORD)

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return sum(len(_header(file)) + file.size + -file.size % _RECORD for file in self.files) + 2 * _RECORD

    def digest(self) -> str:
        """SHA-256 of the archive."""
        digest = hashlib.sha256()
        for block in self:
            digest.update(block)
        return f"sha256:{digest.hexdigest()}"


def _header(file: CopiedFile) -> bytes:
    entry = tarfile.TarInfo(file.path)
    entry.size, entry.mode = file.size, 0o644
    return entry.tobuf(tarfile.GNU_FORMAT)


def publish(bundle: Bundle, copy: Publication, credentials: Mapping[str, str]) -> PublishedModel:
    """Push the image, and let the tag name it once it is whole.

    Raises:
        Refused: the registry refuses it.
        NotReached: another attempt may succeed.
    """
    with _failures(copy):
        registry = _Registry(copy, credentials.get("DOCKER_AUTH_CONFIG"))
        layers = [(layer, layer.digest()) for layer in _layers(bundle)]
        config = _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest for _, digest in layers]},
            }
        )
        descriptors = [{"mediaType": LAYER, "digest": digest, "size": layer.size} for layer, digest in layers]
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": _sha256(config), "size": len(config)},
                "layers": descriptors,
                "annotations": {"dev.hone.digest": bundle.digest},
            }
        )
        for layer, digest in layers:
            registry.push(layer, digest, layer.size)
        registry.push([config], _sha256(config), len(config))
        digest = _sha256(manifest)
        for reference in (digest, registry.tag):
            registry.push_manifest(reference, manifest)
        for blob in (*descriptors, {"digest": _sha256(config), "size": len(config)}):
            registry.check(str(blob["digest"]), int(str(blob["size"])))
        registry.check_manifest(digest)
    return PublishedModel(uri=copy.uri, digest=bundle.digest, revision=digest, size_bytes=bundle.size)


def _layers(bundle: Bundle) -> list[Layer]:
    files = (*bundle.files, bundle.sums)
    small = [file for file in files if file.size < LARGE_BYTES]
    return [Layer([file]) for file in files if file.size >= LARGE_BYTES] + [Layer(small)]


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Registry:
    """A repository of a registry, by the distribution API."""

    def __init__(self, copy: Publication, docker_config: str | None) -> None:
        self._copy = copy
        host, _, rest = copy.uri.removeprefix("oci://").partition("/")
        name, _, self.tag = rest.rpartition(":")
        # As other clients do: a registry on this very host has no certificate.
        self._host = f"{'http' if urlsplit(f'//{host}').hostname in _LOCAL else 'https'}://{host}"
        self._base = f"{self._host}/v2/{name}"
        self._basic = _credentials(host, docker_config)
        self._authorization: str | None = None
        self._client = client()

    def push(self, content: Any, digest: str, size: int) -> None:
        """Send a blob that the registry does not have."""
        if self._ask("HEAD", f"{self._base}/blobs/{digest}", (200, 404)).status_code == 200:
            return
        begun = self._ask("POST", f"{self._base}/blobs/uploads/", (202,), {"Content-Length": "0"})
        place = urljoin(f"{self._base}/", begun.headers.get("Location", ""))
        target = f"{place}{'&' if urlsplit(place).query else '?'}digest={digest}"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._ask("PUT", target, (201,), headers, content)
        log.info("Copied", extra={"blob": digest, "bytes": size})

    def push_manifest(self, reference: str, manifest: bytes) -> None:
        """Store the manifest by its digest, or as that of a tag."""
        self._ask("PUT", f"{self._base}/manifests/{reference}", (201,), {"Content-Type": MANIFEST}, [manifest])

    def check(self, digest: str, size: int) -> None:
        """Compare a blob's size with what was sent; the registry has compared its digest."""
        answer = self._ask("HEAD", f"{self._base}/blobs/{digest}", (200, 404))
        if answer.status_code != 200 or answer.headers.get("Content-Length") != str(size):
            raise failures.differs(self._copy, digest)

    def check_manifest(self, digest: str) -> None:
        """Compare what the tag names with what was sent."""
        answer = self._ask("GET", f"{self._base}/manifests/{self.tag}", (200,), {"Accept": MANIFEST})
        if _sha256(answer.content) != digest:
            raise failures.differs(self._copy, self.tag)

    def _ask(
        self, method: str, url: str, expected: tuple[int, ...], headers: Headers | None = None, content: Any = None
    ) -> "httpx2.Response":
        """One request, and once more with credentials where the registry asks for them."""
        answer = self._send(method, url, headers, content)
        if answer.status_code == 401 and self._authenticate(answer.headers.get("WWW-Authenticate", "")):
            answer = self._send(method, url, headers, content)
        if answer.status_code not in expected:
            raise self._refusal(answer)
        return answer

    def _send(self, method: str, url: str, headers: Headers | None, content: Any) -> "httpx2.Response":
        same = urlsplit(url).netloc == urlsplit(self._host).netloc
        authorization = {"Authorization": self._authorization} if self._authorization and same else {}
        body = None if content is None else iter(content)
        return self._client.request(method, url, headers={**(headers or {}), **authorization}, content=body)

    def _authenticate(self, challenge: str) -> bool:
        """Get what the registry asks for; False if that cannot be, or was tried."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            new = f"Basic {self._basic}" if self._basic else None
        else:
            new = self._token(dict(_CHALLENGE.findall(rest)))
        is_new, self._authorization = new is not None and new != self._authorization, new
        return is_new

    def _token(self, challenge: Mapping[str, str]) -> str | None:
        realm = challenge.get("realm", "")
        is_safe = realm.startswith("https://") or urlsplit(realm).hostname in _LOCAL
        if not is_safe:
            return None
        headers = {"Authorization": f"Basic {self._basic}"} if self._basic else {}
        parameters = {key: challenge[key] for key in ("service", "scope") if key in challenge}
        answer = self._client.get(realm, params=parameters, headers=headers)
        if answer.status_code in (401, 403):
            return None
        if answer.status_code != 200:
            raise failures.NotReached(f"{self._copy.uri}: no token, status {answer.status_code}")
        content = answer.json()
        token = content.get("token") or content.get("access_token")
        return f"Bearer {token}" if token else None

    def _refusal(self, answer: "httpx2.Response") -> Exception:
        copy, status = self._copy, answer.status_code
        if status == 401:
            return failures.unauthenticated(copy, self._basic is not None)
        if status == 403:
            return failures.forbidden(copy)
        if status == 404:
            return failures.missing(copy, "there is no such repository")
        if status in (413, 507):
            return failures.full(copy)
        if status == 400 and b"DIGEST_INVALID" in answer.content:
            return failures.differs(copy, "a layer")
        return failures.NotReached(f"{copy.uri}: the registry answered with status {status}")


def _credentials(host: str, docker_config: str | None) -> str | None:
    """User and password for a registry, in base64, from the configuration that a docker-registry Secret holds.

    Raises:
        Refused: the Secret has something else.
    """
    if docker_config is None:
        return None
    try:
        entries = json.loads(docker_config)["auths"]
        entry = next((entries[key] for key in (host, f"https://{host}", f"https://{host}/v2/") if key in entries), None)
        if entry is None or "auth" in entry:
            return str(entry["auth"]) if entry else None
        return base64.b64encode(f"{entry['username']}:{entry['password']}".encode()).decode()
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        message = "the Secret has no registry's credentials in its key .dockerconfigjson"
        hint = "Create it with `kubectl create secret docker-registry`."
        raise failures.Refused("CredentialsRefused", failures.SECRET, message, hint) from error


@contextmanager
def _failures(copy: Publication) -> Iterator[None]:
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, OSError) as error:
        raise failures.NotReached(f"{copy.uri} could not be reached: {type(error).__name__}") from error
