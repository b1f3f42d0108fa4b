"""The only way into directories that users fill: links stay on their volume, and only regular files are read.

Whoever fills a volume may place a link there to any path of the pod: to its environment with the secrets, to other
runs on the workspace. `check_tree` refuses that before anything is read. A volume may change after it was checked, so
every file that Hone itself reads or copies is opened here, component by component, without following links.
"""

import errno
import json
import os
import shutil
import stat
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from hone.contract.runconfig import MOUNTS
from hone_trainer.protocol.errors import BadInput, clip

OWN_VOLUMES = ("workspace", "output")
"""Volumes that many runs share: a directory there, such as a merged model, may have links only within itself."""

MAX_ENTRIES = 20_000
"""Most files and directories below a model's directory; the largest models have some hundred."""
_MAX_LINKS = 40
_MAX_SHOWN = 120
_REMEDY = "Put the file itself there, not a link (cp -L); links are followed only within one volume."

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link that was replaced while it was read",
}


def volume_of(directory: Path) -> Path:
    """The root of the volume that a directory is on: what is mounted directly below `MOUNTS`.

    The directory itself where it is on no volume of the user's, or on one that runs share.
    """
    parts = PurePath(directory).parts
    mounts = PurePath(MOUNTS).parts
    if parts[: len(mounts)] != mounts or len(parts) == len(mounts) or parts[len(mounts)] in OWN_VOLUMES:
        return directory
    return Path(*parts[: len(mounts) + 1])


def check_tree(directory: Path, field: str) -> None:
    """Refuse a directory from which a link leads out of its volume, or that holds anything but files and directories.

    A link within the volume is followed, and what it leads to is checked as well: Hugging Face's cache is made of such
    links. What is missing or may not be read is not checked: nothing can be read from it.

    Args:
        directory: of a model or an adapter.
        field: the spec's field that names it, for errors.

    Raises:
        BadInput: naming the entry, and what to do about it.
    """
    root = volume_of(directory)
    pending, visited, entries = [locate(directory, "", field)], set[Path](), 0
    while pending:
        place = pending.pop()
        if place in visited:
            continue
        visited.add(place)
        for name in _names(place, field):
            entries += 1
            if entries > MAX_ENTRIES:
                raise BadInput(
                    field,
                    f"has more than {MAX_ENTRIES} files",
                    "Name the directory of the model itself, not one above.",
                )
            target = _follow(root, place / name, field)
            kind = _kind(target)
            if kind == stat.S_IFDIR:
                pending.append(target)
            elif kind not in (stat.S_IFREG, None):
                raise _not_a_file(field, place / name, kind)


def locate(directory: Path, name: str, field: str, volume: Path | None = None) -> Path:
    """Where a file or directory really is, once all links on the way are followed; it need not exist.

    Args:
        directory: that users fill.
        name: of the file, relative to it.
        field: the spec's field that names it, for errors.
        volume: the root of its volume; None: as `volume_of` says.

    Raises:
        BadInput: a link leads out of the volume.
    """
    return _follow(volume or volume_of(directory), directory / name, field)


def open_file(directory: Path, name: str, field: str, volume: Path | None = None) -> BinaryIO:
    """Open a regular file for reading, wherever the links within its volume lead to; arguments as of `locate`.

    Raises:
        BadInput: it is no regular file, is outside of its volume, or was replaced by a link while it was opened.
        OSError: it does not exist, or may not be read.
    """
    root = volume or volume_of(directory)
    place = locate(directory, name, field, root)
    parts = place.relative_to(root.resolve()).parts
    handle = os.open(root, os.O_PATH | os.O_CLOEXEC)
    try:
        for part in parts:
            # O_PATH opens neither devices nor pipes: what it is can be checked first.
            inner = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind != stat.S_IFREG:
            raise _not_a_file(field, directory / name, kind)
        return os.fdopen(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC), "rb")
    except NotADirectoryError as error:
        raise _not_a_file(field, directory / name, stat.S_IFLNK) from error
    finally:
        os.close(handle)


def require_file(directory: Path, name: str, field: str) -> BinaryIO:
    """Open a regular file that a model must have; see `open_file`.

    Raises:
        BadInput: as of `open_file`, or it does not exist, or may not be read.
    """
    try:
        return _readable(directory, name, field)
    except FileNotFoundError as error:
        raise BadInput(field, f"there is no {shown(name)}", "Copy the whole model.") from error


def _readable(directory: Path, name: str, field: str) -> BinaryIO:
    try:
        return open_file(directory, name, field)
    except PermissionError as error:
        problem = f"{shown(name)} may not be read by the pod's user"
        raise BadInput(field, problem, "Let all users read it (chmod a+r).") from error


def read_file(directory: Path, name: str, field: str, limit: int) -> bytes:
    """The whole content of a regular file, at most `limit` bytes; see `open_file`.

    Raises:
        BadInput: as of `open_file`, or it is larger.
    """
    with _readable(directory, name, field) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _too_large(field, directory / name, limit)
    return content


def read_json(directory: Path, name: str, field: str, limit: int) -> dict[str, Any]:
    """The object in a JSON file of a model's directory.

    Raises:
        BadInput: there is none, it cannot be read, or it holds something else.
    """
    try:
        with require_file(directory, name, field) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise _too_large(field, directory / name, limit)
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(field, f"{name} is not JSON: {clip(str(error), 200)}", "Copy the file again.") from error
    if not isinstance(value, dict):
        raise BadInput(field, f"{name} is not a JSON object", "Copy the file again.")
    return value


def copy_file(directory: Path, name: str, target: Path, field: str, limit: int | None = None) -> bool:
    """Copy a regular file byte for byte to `target`, which is replaced; see `open_file`.

    Returns:
        Whether there is such a file.

    Raises:
        BadInput: as of `open_file`, or it has more than `limit` bytes.
    """
    try:
        source = _readable(directory, name, field)
    except FileNotFoundError:
        return False
    with source:
        size = os.fstat(source.fileno()).st_size
        if limit is not None and size > limit:
            raise _too_large(field, directory / name, limit)
        target.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o644), "wb") as copy:
            shutil.copyfileobj(source, copy)
            if limit is not None and copy.tell() > limit:
                raise _too_large(field, directory / name, limit)
    return True


def names_in(directory: Path, name: str, field: str) -> list[str]:
    """The names in a directory that users fill, sorted; none where it does not exist or may not be read."""
    return sorted(_names(locate(directory, name, field), field))


def shown(text: object) -> str:
    """A name from a volume, fit for a message: escaped where it is not printable, and cut off."""
    return clip("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)), _MAX_SHOWN)


def _names(place: Path, field: str) -> list[str]:
    try:
        return [entry.name for entry in place.iterdir()]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise BadInput(field, f"{shown(place)} is nested too deeply", "Name the directory of the model.") from error
        raise


def _kind(place: Path) -> int | None:
    """The type of what is there, None where nothing is, or nothing that may be seen."""
    try:
        return stat.S_IFMT(os.lstat(place).st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def _follow(volume: Path, path: Path, field: str) -> Path:
    """Where a path leads, followed link by link; each step stays below `volume`.

    `os.path.realpath` would tell only where it ends: a link may lead out of the volume and back.
    """
    root = volume.resolve()
    start = next((each for each in (volume, root) if path.is_relative_to(each)), None)
    if start is None:
        raise _leads_out(field, volume, path, path)
    pending, here, links = list(reversed(path.relative_to(start).parts)), root, 0
    while pending:
        part = pending.pop()
        if part == "..":
            if here == root:
                raise _leads_out(field, volume, path, here / "..")
            here = here.parent
            continue
        here = here / part
        target = _link(here)
        if target is None:
            continue
        links += 1
        if links > _MAX_LINKS:
            raise BadInput(field, f"{_relative(volume, path)} is a link that leads back to itself", _REMEDY)
        below = PurePath(target).parts
        if PurePath(target).is_absolute():
            if below[: len(root.parts)] != root.parts:
                raise _leads_out(field, volume, path, Path(target))
            here, below = root, below[len(root.parts) :]
        else:
            here = here.parent
        pending += reversed(below)
    return here


def _link(place: Path) -> str | None:
    """What a link leads to; None of anything else."""
    try:
        return str(place.readlink())
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENAMETOOLONG):
            return None
        raise


def _relative(volume: Path, path: Path) -> str:
    return shown(path.relative_to(volume) if path.is_relative_to(volume) else path)


def _leads_out(field: str, volume: Path, path: Path, target: Path) -> BadInput:
    return BadInput(field, f"{_relative(volume, path)} leads out of its volume, to {shown(target)}", _REMEDY)


def _not_a_file(field: str, path: Path, kind: int) -> BadInput:
    what = _KINDS.get(kind, "no regular file")
    return BadInput(field, f"{shown(path.name)} is {what}", "Put a regular file there, or remove it.")


def _too_large(field: str, path: Path, limit: int) -> BadInput:
    return BadInput(
        field, f"{shown(path.name)} has more than {limit} bytes", "Copy the file of the original model again."
    )
