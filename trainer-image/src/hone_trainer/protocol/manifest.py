"""The manifest of a directory: path, size and SHA-256 of every file, one digest over them, and the check against it.

Needs neither torch nor other libraries of a trainer, so a server can verify its artifact within seconds. A directory
with a manifest has regular files alone: a link could lead to something else each time that it is read.
"""

import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hone.contract.report import ArtifactFile
from hone_trainer.protocol import host

_BLOCK_BYTES = 1 << 20
_LOG_SECONDS = 10.0
_SHOWN = 3
_TICK_SECONDS = 2.0
_KNOWN: dict[tuple[int, ...], str] = {}
"""Digests of files that this process has read, by device, inode, size and times."""

log = logging.getLogger(__name__)


class NoRegularFile(ValueError):
    """Something in a directory that no manifest can have: a link, a device, or a name that would make it ambiguous.

    Args:
        path: its path under the directory.
        problem: what it is.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path!a} is {problem}")
        self.path = path


def list_files(directory: Path, without: Iterable[str] = ()) -> list[ArtifactFile]:
    """Every file under `directory`, in order of path. Files of one directory are read in parallel.

    Args:
        directory: the directory.
        without: paths that are left out.

    Raises:
        NoRegularFile: there is something else than directories and regular files.
    """
    files: list[ArtifactFile] = []
    left_out = set(without)
    for parent, descriptor, present in _directories(directory):
        names = [name for name in present if parent + name not in left_out]
        with ThreadPoolExecutor(host.cpus()) as pool:
            entries = pool.map(lambda name: _entry(parent + name, name, descriptor), names)  # noqa: B023
            files.extend(entries)
    return sorted(files, key=lambda file: file.path)


def digest_of(files: Iterable[ArtifactFile]) -> str:
    """One digest over all files: of what `sha256sum` prints for them in order of path."""
    lines = "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def differences(directory: Path, files: Iterable[ArtifactFile], without: Iterable[str] = ()) -> list[str]:
    """In what `directory` differs from its manifest: each file with what is wrong; empty if it does not.

    Args:
        directory: the directory.
        files: its manifest.
        without: paths that the manifest leaves out.
    """
    try:
        return compare(list_files(directory, without), files)
    except (NoRegularFile, FileNotFoundError, NotADirectoryError) as error:
        return [str(error)]


def compare(files: Iterable[ArtifactFile], expected: Iterable[ArtifactFile]) -> list[str]:
    """In what the files that are there differ from those of a manifest."""
    present, listed = {file.path: file for file in files}, {file.path: file for file in expected}
    return [
        f"{path!a} {_difference(listed.get(path), present.get(path))}"
        for path in sorted(listed.keys() | present.keys())
        if listed.get(path) != present.get(path)
    ]


def in_words(problems: list[str]) -> str:
    """The first differences, and how many more there are."""
    more = len(problems) - _SHOWN
    return "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _difference(expected: ArtifactFile | None, present: ArtifactFile | None) -> str:
    if expected is None:
        return "was added"
    if present is None:
        return "is missing"
    if expected.size_bytes != present.size_bytes:
        return f"has {present.size_bytes} bytes instead of {expected.size_bytes}"
    return "has other content"


def _directories(top: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Each directory under `top`: its path with a slash, an open descriptor, and the names in it.

    Everything is opened by these descriptors, so that a directory that is replaced by a link is not followed.
    """
    if top.is_symlink() or not top.is_dir():
        raise NotADirectoryError(f"{top} is no directory")
    for path, directories, names, descriptor in os.fwalk(top, onerror=_fail, follow_symlinks=False):
        parent = "" if Path(path) == top else Path(path).relative_to(top).as_posix() + "/"
        for name in directories:
            _check_name(parent + name)
            if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise NoRegularFile(parent + name, "a link")
        yield parent, descriptor, names


def _entry(path: str, name: str, directory: int) -> ArtifactFile:
    _check_name(path)
    with _opened(path, name, directory) as descriptor:
        return ArtifactFile(path=path, sha256=sha256(descriptor, path), size_bytes=os.fstat(descriptor).st_size)


@contextmanager
def _opened(path: str, name: str, directory: int) -> Iterator[int]:
    if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise NoRegularFile(path, "a link")
    # Without waiting: a named pipe would never answer.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NoRegularFile(path, "no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def sha256(descriptor: int, path: str) -> str:
    """SHA-256 of an open file from its current position on, in hex; `path` is for the log.

    A process reads a file once, as long as neither size nor times change. Those of files that changed just now are not
    enough: they may change again within the same tick of the clock.
    """
    status = os.fstat(descriptor)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in _KNOWN:
        digest = _read(descriptor, path, status.st_size)
        if time.time() - status.st_ctime < _TICK_SECONDS:
            return digest
        _KNOWN[key] = digest
    return _KNOWN[key]


def _read(descriptor: int, path: str, size: int) -> str:
    digest, done, next_log = hashlib.sha256(), 0, time.monotonic() + _LOG_SECONDS
    while block := os.read(descriptor, _BLOCK_BYTES):
        digest.update(block)
        done += len(block)
        if time.monotonic() >= next_log:
            log.info("Reading a file", extra={"file": path, "bytes": done, "ofBytes": size})
            next_log = time.monotonic() + _LOG_SECONDS
    return digest.hexdigest()


def _check_name(path: str) -> None:
    """Refuse names with which two directories could have one digest: `sha256sum` prints a line for each file."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise NoRegularFile(path, "no name in UTF-8") from error
    if any(ord(character) < 32 or ord(character) == 127 for character in path) or "\\" in path:
        raise NoRegularFile(path, "a name with control characters or a backslash")


def _fail(error: OSError) -> None:
    raise error
