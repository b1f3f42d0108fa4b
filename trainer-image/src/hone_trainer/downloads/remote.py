"""What an origin of files offers: a list of files with what is known of each, and a way to fetch them."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hone.contract.runconfig import Download
from hone_trainer.protocol.errors import BadInput, clip

MAX_FILES = 20_000
"""Most files of a model or data set; the largest have some thousand."""
_MAX_PATH, _MAX_NAME = 1024, 255
_SMALL_BYTES = 64 << 20
_BLOCK = 1 << 20


class Unreachable(RuntimeError):
    """The origin did not answer, or answered with an error of its own; another attempt may succeed."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its origin lists it.

    Attributes:
        path: where it is written, below the directory of the download.
        key: its name at the origin.
        size: in bytes; None: unknown.
        sha256, md5: of its content, in hex; None: unknown.
        blob: Git's name of its content; None: unknown.
        etag: what must not change while it is downloaded; None: unknown.
    """

    path: str
    key: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    blob: str | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a model or data set, and the revision that they are of."""

    revision: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(file.size or 0 for file in self.files)


class Origin(Protocol):
    """Where files come from. Each method raises BadInput for what the user must change, else Unreachable."""

    kind: str
    """Begins the name of the directory that all runs share."""
    identity: str
    """What the files of a revision depend on in addition to it."""

    def files(self) -> Listing:
        """The files that the spec names, now."""

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Write them below a directory, where some may be from an earlier attempt."""


def shown(download: Download) -> str:
    """The uri without the query of a URL, which may be a signature."""
    return download.uri.partition("?")[0] if download.uri.startswith("https://") else download.uri


def safe_path(download: Download, name: str) -> str:
    """A name that an origin lists, if it is a path that stays below the directory it is written to.

    Raises:
        BadInput: it is not.
    """
    return path_below(f"{download.field}.uri", name)


def path_below(field: str, name: str) -> str:
    """The same for a name in a list of files that a field leads to."""
    parts, sizes = name.split("/"), [len(part.encode(errors="replace")) for part in name.split("/")]
    problem = None
    if any(part in ("", ".", "..") for part in parts):
        problem = "leads out of its directory, or has an empty part"
    elif re.search(r"[\x00-\x1f\x7f\\]", name):
        problem = "has control characters or a backslash"
    elif sum(sizes) > _MAX_PATH or max(sizes) > _MAX_NAME:
        problem = "is too long"
    elif parts[0].startswith("."):
        problem = "is hidden"
    if problem:
        raise BadInput(field, f"the name {clip(ascii(name), 120)} {problem}", "Rename it.")
    return name


def check_paths(download: Download, files: tuple[RemoteFile, ...]) -> None:
    """Refuse lists that have no directory: too many files, or a file that is also a directory.

    Raises:
        BadInput: naming the file.
    """
    field = f"{download.field}.uri"
    if len(files) > MAX_FILES:
        raise BadInput(field, f"has more than {MAX_FILES} files", "Name fewer, in larger files.")
    paths = {file.path for file in files}
    for file in files:
        parents = file.path.split("/")[:-1]
        for end in range(1, len(parents) + 1):
            if (parent := "/".join(parents[:end])) in paths:
                raise BadInput(field, f"{clip(parent, 120)} is both a file and a directory", "Rename one of them.")
    if len(paths) != len(files):
        raise BadInput(field, "lists a file twice", "Rename one of them.")


def difference(file: RemoteFile, path: Path, size: int, sha256: str) -> bool:
    """Whether a file that was downloaded differs from what its origin lists."""
    if file.size is not None and size != file.size:
        return True
    if file.sha256 is not None:
        return sha256 != file.sha256
    if file.md5 is not None:
        return _md5(path) != file.md5
    return file.blob is not None and blob_id(path) != file.blob


def blob_id(path: Path) -> str:
    """Git's name for the content of a small file."""
    size = path.stat().st_size
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    if size <= _SMALL_BYTES:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
