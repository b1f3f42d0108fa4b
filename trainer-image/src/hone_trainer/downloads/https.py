"""A file of an HTTPS server, known by its SHA-256. The server is asked once more where a connection was cut."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hone.contract.runconfig import ROWS, Download
from hone_trainer.downloads.remote import Listing, RemoteFile, Unreachable, safe_path, shown
from hone_trainer.protocol import limits
from hone_trainer.protocol.addresses import PrivateAddress, public_only
from hone_trainer.protocol.errors import BadInput, full_disk_hint
from hone_trainer.protocol.manifest import sha256
from hone_trainer.protocol.units import gib

if TYPE_CHECKING:
    import httpx2

_ATTEMPTS = 5
_PART = ".part"
_RESERVE = 64 << 20
_BYTES_PER_SECOND = 2_000_000
"""How slow a connection may be."""
_REDIRECTS = 5


@contextmanager
def https(download: Download) -> Iterator["Https"]:
    """A file of an HTTPS server with a public address."""
    import httpx2

    def refuse_plain(request: httpx2.Request) -> None:
        if request.url.scheme != "https":
            raise _Plain(f"a redirect leads to {request.url.scheme}://{request.url.host}")

    hooks = {"request": [refuse_plain]}
    timeout = httpx2.Timeout(60.0)
    with (
        public_only(()),
        httpx2.Client(follow_redirects=True, max_redirects=_REDIRECTS, timeout=timeout, event_hooks=hooks) as client,
    ):
        yield Https(download, client)


class _Plain(Exception):
    """A redirect leaves HTTPS."""


class _Cut(Exception):
    """The connection ended before the file did."""


class Https:
    """A file of an HTTPS server.

    Args:
        download: what the spec names, with the digest.
        client: connects to the server.
    """

    kind = "https"

    def __init__(self, download: Download, client: "httpx2.Client") -> None:
        self._download, self._client = download, client
        self.identity = download.uri

    def files(self) -> Listing:
        """The file, under the last part of the URL's path. Nothing is asked: its digest is known."""
        name = unquote(urlsplit(self._download.uri).path).rsplit("/", 1)[-1] or "rows"
        path = f"{ROWS}/{safe_path(self._download, name)}"
        digest = str(self._download.sha256)
        return Listing(digest, (RemoteFile(path, name, sha256=digest),))

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Write the file below a directory, from where an earlier attempt ended."""
        path = directory / listing.files[0].path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + _PART)
        resumed = part.exists()
        self._continue(part)
        digest = _digest(part)
        if digest != listing.revision and resumed:
            # The server may have another file now.
            part.unlink()
            self._continue(part)
            digest = _digest(part)
        if digest != listing.revision:
            part.unlink()
            message = f"the file at {shown(self._download)} has the digest {digest}"
            remedy = "Check that this is the file that you want, then set this digest; or correct the uri."
            raise BadInput(f"{self._download.field}.sha256", message, remedy)
        part.rename(path)

    def _continue(self, part: Path) -> None:
        for attempt in range(_ATTEMPTS):
            before = _size(part)
            try:
                with _failures(self._download):
                    return self._receive(part)
            except _Cut as error:
                if _size(part) == before and attempt:
                    break
                cause = error
        raise Unreachable(f"{shown(self._download)}: the connection was cut again and again") from cause

    def _receive(self, part: Path) -> None:
        done = _size(part)
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
        with self._client.stream("GET", self._download.uri, headers=headers) as response:
            if response.status_code == 416:
                return  # all of it is there
            self._check_status(response)
            if response.status_code != 206 or not _continues(response, done):
                done = 0
            self._write(response, part, done)

    def _write(self, response: "httpx2.Response", part: Path, done: int) -> None:
        import httpx2

        length = response.headers.get("Content-Length", "")
        more = int(length) if length.isdigit() else None
        most = self._room(part.parent, more or 0)
        limits.allow((more or 0) / _BYTES_PER_SECOND)
        received = 0
        try:
            with part.open("r+b" if done else "wb") as file:
                file.seek(done)
                for block in response.iter_raw():
                    received += len(block)
                    if received > most:
                        self._room(part.parent, received)
                    file.write(block)
        except httpx2.TransportError as error:
            raise _Cut from error
        if more is not None and received < more:
            raise _Cut

    def _room(self, directory: Path, needed: int) -> int:
        """The bytes that a file may have on the workspace, of which some must be left to others."""
        free = max(0, shutil.disk_usage(directory).free - _RESERVE)
        if needed > free:
            message = f"{shown(self._download)} has {gib(needed)} or more to be downloaded, but {gib(free)} are free"
            raise BadInput("spec.workspace.size", message, f"Raise it by {gib(needed - free)} or more.")
        return free

    def _check_status(self, response: "httpx2.Response") -> None:
        status = response.status_code
        field, url = f"{self._download.field}.uri", shown(self._download)
        if status in (401, 403):
            remedy = "Use a URL that needs no login, or copy the file to a claim or an S3 bucket."
            raise BadInput(field, f"{url} may not be read without a login: status {status}", remedy)
        if status in (404, 410):
            raise BadInput(field, f"{url} does not exist: status {status}", "Correct the uri.")
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise BadInput(field, f"{url}: the server answered with status {status}", "Correct the uri.")
        if status not in (200, 206):
            raise Unreachable(f"{url}: the server answered with status {status}")


@contextmanager
def _failures(download: Download) -> Iterator[None]:
    """What the user must change as BadInput; all else as Unreachable."""
    import httpx2

    field, url = f"{download.field}.uri", shown(download)
    try:
        yield
    except PrivateAddress as error:
        remedy = "Use a server with a public address, or copy the file to a claim."
        raise BadInput(field, f"{url}: {error}", remedy) from error
    except _Plain as error:
        raise BadInput(field, f"{url}: {error}", "Use a URL that is served by HTTPS.") from error
    except httpx2.TooManyRedirects as error:
        raise BadInput(field, f"{url} redirects more than {_REDIRECTS} times", "Correct the uri.") from error
    except httpx2.InvalidURL as error:
        raise BadInput(field, f"{url} leads to no valid URL", "Correct the uri.") from error
    except httpx2.ReadError as error:
        raise _Cut from error
    except (httpx2.HTTPError, OSError) as error:
        if full_disk_hint(error):
            raise
        raise Unreachable(_unreachable(url, error)) from error


def _unreachable(url: str, error: Exception) -> str:
    cause = type(error.__cause__ or error).__name__
    return f"{url} could not be downloaded: {cause}. Prepare pods may reach public addresses on port 443"


def _continues(response: "httpx2.Response", done: int) -> bool:
    """Whether an answer begins where the file ends."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == done


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return sha256(file.fileno(), path.name)
