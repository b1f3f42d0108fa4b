"""Atomic writes, removal of half-written files, and whether a volume is full."""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

_TRIED_BYTES = 1 << 20
_STALE_SECONDS = 24 * 3600


def write_atomic(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write `data` to `path` by temporary name and rename, so that no reader sees half of it.

    Args:
        path: the file; its directory exists.
        data: the whole content.
        durable: flush it and its name to the disk, so that it outlives the machine and not only the process.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes files for their owner only; what is on a claim is read by other pods too.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def is_full(directory: Path) -> bool:
    """Whether its volume takes no more, by its size or by a quota: found by writing `_TRIED_BYTES`."""
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            file.write(os.urandom(_TRIED_BYTES))
            os.fdatasync(file.fileno())
            return os.fstat(file.fileno()).st_size < _TRIED_BYTES
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sync_tree(directory: Path) -> None:
    """Flush every file under `directory`, and the directories' own entries, to the disk."""
    for path in [*directory.rglob("*"), directory]:
        _sync(path)


def sync_files(paths: Iterable[Path]) -> None:
    """Flush these files, and their directories' own entries, to the disk."""
    paths = list(paths)
    for path in [*paths, *{path.parent for path in paths}]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_named(directory: Path, prefix: str) -> None:
    """Remove a directory, or a link in its place, under its name at once. Readers keep files that they have open.

    Args:
        directory: the directory.
        prefix: of names that `remove_stale` removes, for what a killed pod leaves.
    """
    if directory.is_symlink():
        directory.unlink()
        return
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    directory.rename(aside / directory.name)
    shutil.rmtree(aside, ignore_errors=True)


def remove_stale(parent: Path, prefix: str) -> None:
    """Remove directories that a killed pod left half-written.

    A run that still writes to one has changed it, or something in it, within a day.

    Args:
        parent: where they lie; it need not exist.
        prefix: of their names.
    """
    for left in parent.glob(f"{prefix}*"):
        try:
            if time.time() - _changed(left) > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            continue


def _changed(directory: Path) -> float:
    """When the directory or anything in it has changed last."""
    newest = directory.stat().st_mtime
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, (Path(parent) / name).lstat().st_mtime)
    return newest
