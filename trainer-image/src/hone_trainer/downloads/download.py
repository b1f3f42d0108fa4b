"""Downloads models and data sets to the workspace: each revision once, and each job reads a directory of its own.

The files of a revision lie in `<workspace>/models/<origin>-<digest>`, or below `data`, for all jobs on the workspace. A
job reads hard links to them, so that it sees the same files for as long as it lasts, whatever becomes of that directory
or of a branch.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pydantic import ValidationError

from hone.contract.progress import DOWNLOADING
from hone.contract.report import Manifest
from hone.contract.results import DownloadedModel
from hone.contract.runconfig import CACHE, Download
from hone_trainer.downloads.published import changed, published_files
from hone_trainer.downloads.remote import Listing, Origin, Unreachable, check_paths, difference, shown
from hone_trainer.protocol import limits, manifest, secrets, shared
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.files import remove_named, remove_stale, sync_tree, write_atomic
from hone_trainer.protocol.rows_done import rows_done
from hone_trainer.protocol.units import gib
from hone_trainer.protocol.volumes import read_file

MANIFEST_FILE, MANIFEST_BYTES = "MANIFEST.json", 16 << 20
SMALL_BYTES = 16 << 20
"""Largest file that is read to learn what a model is."""
BYTES_PER_SECOND = 2_000_000
"""How slow a connection may be."""
_PARTIAL, _LINKING = ".downloading-", ".linking-"
_LOG_SECONDS, _REPORT_SECONDS = 10.0, 1.0
_COUNTING_SHARE = 0.02
"""Most of the time that may be spent on counting the bytes of a download."""

log = logging.getLogger(__name__)


class DownloadManifest(Manifest):
    """The content of `MANIFEST_FILE` in the directory of a download: all of its other files."""

    uri: str
    revision: str
    """The commit, or the digest that stands for it."""
    request: str | None = None
    """In a run's own directory: digest of what the spec asked for. It may be edited until the run starts."""


def ensure_downloaded(download: Download) -> DownloadedModel:
    """Download a model or data set, unless this run or another one on the workspace has done so.

    Its files are compared with what the origin lists, and with the digests in the manifest whenever they are used
    again. A connection that is cut resumes; files that were whole when the step was killed are not downloaded again.

    Raises:
        BadInput: there is nothing of this name, the credentials are refused, it has no files that are read, or the
            workspace is too small.
        Unreachable: a failure that may pass.
    """
    into = Path(download.downloaded)
    into.parent.mkdir(parents=True, exist_ok=True)
    for prefix in (_PARTIAL, _LINKING):
        remove_stale(into.parent, prefix)
    credentials = _take_secrets(download)
    result = _whole(into)
    if result is None or result.request not in (None, _request(download)):
        with _origin(download, credentials) as origin:
            result = _fetched(download, origin, into)
    log.info("On the workspace", extra={"uri": result.uri, "revision": result.revision, "directory": str(into)})
    return DownloadedModel(
        field=download.field,
        uri=result.uri,
        revision=result.revision,
        size_bytes=sum(file.size_bytes for file in result.files),
    )


def _request(download: Download) -> str:
    """The digest of what decides which files are downloaded."""
    names = ("uri", "endpoint", "s3", "revision", "is_data", "config", "split", "sha256", "sums")
    fields = download.model_dump(mode="json", include=set(names), exclude_none=True)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _take_secrets(download: Download) -> dict[str, str]:
    """The credentials, by the keys of the Secret. Removed, so that no library that reads the files can tell them."""
    variables = dict(download.credentials or {})
    if download.token_variable:
        variables["HF_TOKEN"] = download.token_variable
    # A Secret that was made from a file often ends with a line break, which no request may have.
    values = {key: os.environ.pop(variable, "").strip() for key, variable in variables.items()}
    secrets.take({variable: values[key] for key, variable in variables.items()})
    return {key: value for key, value in values.items() if value}


def _hub(download: Download, credentials: Mapping[str, str]) -> AbstractContextManager[Origin]:
    from hone_trainer.downloads.hub import hub

    return hub(download, credentials.get("HF_TOKEN"))


def _s3(download: Download, credentials: Mapping[str, str]) -> AbstractContextManager[Origin]:
    from hone_trainer.downloads.s3 import s3

    return s3(download, credentials)


def _https(download: Download, _: Mapping[str, str]) -> AbstractContextManager[Origin]:
    from hone_trainer.downloads.https import https

    return https(download)


_ORIGINS: Mapping[str, Callable[[Download, Mapping[str, str]], AbstractContextManager[Origin]]] = {
    "hf": _hub,
    "s3": _s3,
    "https": _https,
}


def _origin(download: Download, credentials: Mapping[str, str]) -> AbstractContextManager[Origin]:
    return _ORIGINS[download.uri.partition("://")[0]](download, credentials)


def _fetched(download: Download, origin: Origin, into: Path) -> DownloadManifest:
    listing = _listed(download, origin, into.parent)
    name = hashlib.sha256(f"{origin.identity} {listing.revision}".encode()).hexdigest()[:16]
    common = into.parent / f"{origin.kind}-{name}"
    shared.use(common)
    result = _whole(common)
    if result is None:
        result = _download(download, origin, listing, common)
    own = result.model_copy(update={"request": _request(download)})
    _link(common, into, own)
    return own


def _listed(download: Download, origin: Origin, volume: Path) -> Listing:
    """The files to download, whose names are safe."""
    limits.reading(download.field, "the list of files")
    listing = origin.files()
    limits.reading("", "")
    check_paths(download, listing.files)
    return listing if download.sums is None else published_files(download, origin, listing, volume)


def inspected(download: Download, names: Collection[str], directory: Path) -> Listing:
    """List a model that is not to be downloaded as a whole, and write those of its files with these names.

    Raises:
        BadInput, Unreachable: as of `ensure_downloaded`; or one of the files is not small.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _origin(download, _take_secrets(download)) as origin:
        listing = _listed(download, origin, directory.parent)
        files = tuple(file for file in listing.files if file.path in names)
        for file in files:
            if (file.size or 0) > SMALL_BYTES:
                message = f"{file.path} has {file.size} bytes, more than {SMALL_BYTES}"
                raise BadInput(f"{download.field}.uri", message, "Publish the artifact again.")
        if files:
            directory.mkdir(exist_ok=True)
            origin.fetch(Listing(listing.revision, files), directory)
            _verified(download, Listing(listing.revision, files), directory)
    return listing


def _whole(directory: Path) -> DownloadManifest | None:
    """The manifest of a download, if each of its files is as it was written."""
    if not directory.exists():
        return None
    try:
        text = read_file(directory, MANIFEST_FILE, "spec.workspace", MANIFEST_BYTES)
        written = DownloadManifest.model_validate_json(text)
    except (OSError, BadInput, ValidationError):
        return None
    problems = manifest.differences(directory, written.files, without=(MANIFEST_FILE,))
    if problems:
        reason = manifest.in_words(problems)
        log.warning("Downloading again", extra={"directory": str(directory), "reason": reason})
    return None if problems else written


def _download(download: Download, origin: Origin, listing: Listing, common: Path) -> DownloadManifest:
    # One per run and revision: two runs do not write to the same files, and no file of another revision is left in it.
    partial = common.parent / f"{_PARTIAL}{Path(download.downloaded).name}-{listing.revision[:12]}"
    _require_space(download, common.parent, listing.size, partial)
    limits.allow(listing.size / BYTES_PER_SECOND)
    began = time.monotonic()
    about = {"uri": shown(download), "revision": listing.revision, "bytes": listing.size}
    log.info("Downloading", extra={**about, "files": len(listing.files)})
    partial.mkdir(exist_ok=True)
    with _progress(download, partial, listing.size):
        origin.fetch(listing, partial)
    result = _verified(download, listing, partial)
    write_atomic(partial / MANIFEST_FILE, result.to_json().encode())
    sync_tree(partial)
    partial.chmod(0o755)
    if common.exists() and _whole(common) is None:
        remove_named(common, _PARTIAL)
    try:
        partial.rename(common)
    except OSError:  # another job on this workspace was faster
        if _whole(common) is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)
    log.info("Downloaded", extra={**about, "seconds": round(time.monotonic() - began, 1)})
    return result


def _verified(download: Download, listing: Listing, directory: Path) -> DownloadManifest:
    """The manifest of what was downloaded. A file that is not as listed is removed, for the next attempt."""
    present = {file.path: file for file in manifest.list_files(directory)}
    for file in listing.files:
        actual, path = present.get(file.path), directory / file.path
        if actual is None or difference(file, path, actual.size_bytes, actual.sha256):
            path.unlink(missing_ok=True)
            if download.sums is not None and actual is not None:
                raise changed(download, file.path)
            raise Unreachable(f"{shown(download)}: {file.key!a} was downloaded with other content than listed")
    listed = {file.path for file in listing.files}
    for name in present.keys() - listed:
        (directory / name).unlink()
    whole = [file for name, file in present.items() if name in listed]
    return DownloadManifest(uri=shown(download), revision=listing.revision, files=whole)


@contextmanager
def _progress(download: Download, directory: Path, size: int) -> Iterator[None]:
    """Report every second, and log every few seconds, how much is there, how fast it grows, and the time left.

    Less often where it takes long to count, as of many files on a file server.
    """
    ended, began, first = threading.Event(), time.monotonic(), _bytes_in(directory)

    def report() -> None:
        next_log, counting = began + _LOG_SECONDS, 0.0
        while not ended.wait(max(_REPORT_SECONDS, counting / _COUNTING_SHARE)):
            counted = time.monotonic()
            done, now = _bytes_in(directory), time.monotonic()
            counting = now - counted
            rate = (done - first) / (now - began)
            rows_done.write(DOWNLOADING, done, size or None, rate)
            if now < next_log:
                continue
            next_log = now + _LOG_SECONDS
            left = round((size - done) / rate) if rate > 0 and size else None
            about = {"uri": shown(download), "bytes": done, "ofBytes": size or None}
            log.info("Downloading", extra={**about, "bytesPerSecond": round(rate), "secondsLeft": left})

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        rows_done.end()


def _bytes_in(directory: Path) -> int:
    """Bytes of all files in a directory that somebody is writing to."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _require_space(download: Download, volume: Path, size: int, partial: Path) -> None:
    needed = size - _bytes_in(partial)
    shared.make_room(volume, needed)
    free = shutil.disk_usage(volume).free
    if needed > free:
        problem = (
            f"{shown(download)} has {gib(size)}; {gib(needed)} are still to be downloaded, but {gib(free)} are free"
        )
        if volume.is_relative_to(CACHE):
            remedy = f"Make the claim larger by {gib(needed - free)} or more, or name another one."
            raise BadInput("spec.cache.claimName", problem, remedy)
        raise BadInput("spec.workspace.size", problem, f"Raise it by {gib(needed - free)} or more.")


def _link(common: Path, into: Path, result: DownloadManifest) -> None:
    """Make the run's own directory of hard links, or of copies where the volume has none; whole or not at all."""
    directory = Path(tempfile.mkdtemp(prefix=_LINKING, dir=into.parent))
    try:
        for name in (file.path for file in result.files):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(common / name, directory / name, follow_symlinks=False)
            except OSError:
                shutil.copyfile(common / name, directory / name, follow_symlinks=False)
        write_atomic(directory / MANIFEST_FILE, result.to_json().encode())
        sync_tree(directory)
        directory.chmod(0o755)
        if into.is_symlink() or into.exists():
            remove_named(into, _LINKING)
        directory.rename(into)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
