"""What jobs share on a volume: each marks what it reads, and what none needs is removed to make room.

    <volume>/.hone/lock              held while a mark is written, and while entries are chosen and renamed away
    <volume>/.hone/uses/<uid>/       the marks of a run, empty files such as `prepared--<name>`
    <volume>/models|data|prepared/   the entries, whose own times say when a run has used them last

A run marks an entry before it checks whether the entry is there, so it either has it for as long as the run lasts, or
makes it again. Which runs have not ended, the operator lists (`SharedVolume`). A run's own directory of hard links
needs no mark: its name begins with the run's uid.
"""

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hone.contract.runconfig import SharedVolume
from hone_trainer.protocol.files import remove_stale

MARGIN_SECONDS = 3600.0
"""How far the clocks of operator, nodes and file server may differ."""
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOWNLOADED = (re.compile(rf"(?:hub|s3|https)-[0-9a-f]{{16}}|[0-9a-f]{{16}}|{_UID.pattern}-.+"), "MANIFEST.json")
_ROOMS = {"models": _DOWNLOADED, "data": _DOWNLOADED, "prepared": (re.compile(r"[0-9a-f]{16,64}"), "prepared.json")}
"""Directories with entries: how these are named, and a file that each has. A namespace may have the same name, whose
directory has those of its jobs."""
_FIRST_BYTES = 1 << 20
"""Room for the marks on a volume that is full."""
_REMOVED, _HIDDEN = ".removed-", ".hone"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """Something that is removed as a whole.

    Attributes:
        path: its directory.
        used: when a run has used it last, in seconds since 1970.
        owner: uid of the only run that reads it; None: all may.
        files: bytes of its files by inode, which may be those of other entries too.
    """

    path: Path
    used: float
    owner: str | None
    files: Mapping[int, int]

    @property
    def mark(self) -> str:
        return _mark(self.path)


@dataclass
class _Joined:
    """The run of this process, and the volumes that it shares."""

    run: str = ""
    volumes: Sequence[SharedVolume] = field(default_factory=tuple)

    def volume(self, path: Path) -> SharedVolume | None:
        return next((volume for volume in self.volumes if path.is_relative_to(volume.path)), None)


_joined = _Joined()


def join(run: str, volumes: Sequence[SharedVolume]) -> None:
    """Name the run whose pod this is, and the volumes that it shares with others; without any, nothing is removed.

    The run has marks from now on, also where it uses nothing.
    """
    _joined.run, _joined.volumes = run, volumes
    for volume in volumes:
        try:
            _register(volume)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            make_room(Path(volume.path), _FIRST_BYTES)
            _register(volume)


def _register(volume: SharedVolume) -> None:
    marks = _uses(volume) / _joined.run
    with _locked(volume, is_optional=True):
        marks.mkdir(parents=True, exist_ok=True)
        os.utime(marks)


def use(entry: Path) -> None:
    """Keep an entry from being removed until this run has ended. To be called before looking whether it is there.

    Args:
        entry: its directory, such as `<volume>/prepared/<name>`, which need not exist.
    """
    volume = _joined.volume(entry)
    if volume is None:
        return
    marks = _uses(volume) / _joined.run
    with _locked(volume, is_optional=True):
        marks.mkdir(parents=True, exist_ok=True)
        (marks / _mark(entry)).touch()
        os.utime(marks)
        with suppress(OSError):  # it is not there, or another user's
            os.utime(entry)


def use_again(run: str, volume: Path, entries: Sequence[Path]) -> bool:
    """Keep entries of a run that has ended from now on, if they are all there; returns whether they are.

    Args:
        run: its uid.
        volume: where they are, which other runs may share.
        entries: their directories.
    """
    if (volume / _HIDDEN).is_dir():
        # Which runs have not ended is not known here: each that has marks counts as one.
        join(run, [SharedVolume(path=str(volume), as_of=0.0)])
        for entry in entries:
            use(entry)
    return all(entry.is_dir() for entry in entries)


def make_room(directory: Path, needed: int) -> None:
    """Remove what no run needs, until a volume has room and what is kept on it fits its limit; the oldest first.

    What runs need stays, also if that is more than the limit.

    Args:
        directory: on the volume.
        needed: bytes that are about to be written.
    """
    volume = _joined.volume(directory)
    if volume is None:
        return
    try:
        with _locked(volume):
            live = _live(volume)
            removed = _choose(volume, live, needed)
            asides = [_rename_away(entry.path) for entry in removed]
            _forget_runs(volume, live)
    except OSError as error:
        # Such as a file system without locks. Without room, what needs it says so.
        log.warning("No room was made on the volume", extra={"volume": volume.path, "reason": str(error)})
        return
    for entry, aside in zip(removed, asides, strict=True):
        log.info("Removed what no job needs", extra={"directory": str(entry.path)})
        shutil.rmtree(aside, ignore_errors=True)
    for room in _ROOMS:
        remove_stale(Path(volume.path) / room, _REMOVED)


@contextmanager
def _locked(volume: SharedVolume, is_optional: bool = False) -> Iterator[None]:
    """Hold the volume's lock, which a process that is killed gives up.

    Args:
        volume: the volume.
        is_optional: whether to continue without it where the file system has no locks: nothing is removed there.
    """
    hidden = _uses(volume).parent
    hidden.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        with suppress(OSError) if is_optional else nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _choose(volume: SharedVolume, live: Collection[str], needed: int) -> list[_Entry]:
    """What to remove: of runs that are gone first, then what was used least recently."""
    entries = list(_entries(Path(volume.path)))
    holders = Counter(inode for entry in entries for inode in entry.files)
    total = sum({inode: size for entry in entries for inode, size in entry.files.items()}.values())
    excess = needed - shutil.disk_usage(volume.path).free
    if volume.limit_bytes is not None:
        excess = max(excess, total + needed - volume.limit_bytes)
    removed = []
    for entry in sorted(entries, key=lambda entry: (entry.owner is None, entry.used)):
        if excess <= 0:
            break
        if _is_needed(volume, entry, live):
            continue
        removed.append(entry)
        holders.subtract(entry.files.keys())
        excess -= sum(size for inode, size in entry.files.items() if not holders[inode])
    return removed


def _live(volume: SharedVolume) -> set[str]:
    """Uids of the runs that may need what is on the volume: those of the list, and those that came after it."""
    later = {run.name for run in _runs(volume) if _is_recent(volume, run.stat().st_mtime)}
    return {_joined.run, *volume.runs, *volume.planned, *later}


def _is_needed(volume: SharedVolume, entry: _Entry, live: Collection[str]) -> bool:
    if entry.owner is not None:
        return entry.owner in live or _is_recent(volume, entry.used)
    uses = _uses(volume)
    if any((uses / run / entry.mark).exists() for run in live):
        return True
    # A trainer of an older release makes no marks, so what its run reads is not known.
    return any(not (uses / run).is_dir() for run in volume.planned)


def _is_recent(volume: SharedVolume, time: float) -> bool:
    return time >= volume.as_of - MARGIN_SECONDS


def _forget_runs(volume: SharedVolume, live: Collection[str]) -> None:
    """Remove the marks of runs that have ended."""
    for run in _runs(volume):
        if run.name not in live:
            shutil.rmtree(run, ignore_errors=True)


def _runs(volume: SharedVolume) -> list[Path]:
    uses = _uses(volume)
    return [path for path in uses.iterdir() if _UID.fullmatch(path.name)] if uses.is_dir() else []


def _entries(volume: Path) -> Iterator[_Entry]:
    for room, (name, file) in _ROOMS.items():
        for path in (volume / room).glob("*"):
            if name.fullmatch(path.name) and not path.is_symlink() and (path / file).is_file():
                owner = _UID.match(path.name)
                yield _Entry(path, path.stat().st_mtime, owner.group() if owner else None, _files(path))


def _files(directory: Path) -> dict[int, int]:
    stats = [(Path(parent) / name).lstat() for parent, _, names in os.walk(directory) for name in names]
    return {stat.st_ino: stat.st_size for stat in stats}


def _rename_away(entry: Path) -> Path:
    # Under a new name, but in no new directory: the volume may be too full for one. Not by the process: in a pod, most
    # have the same number, and what a pod that was killed has left may still be there.
    return entry.rename(entry.with_name(f"{_REMOVED}{entry.name}-{secrets.token_hex(8)}"))


def _uses(volume: SharedVolume) -> Path:
    return Path(volume.path) / _HIDDEN / "uses"


def _mark(entry: Path) -> str:
    return f"{entry.parent.name}--{entry.name}"
