"""Folders of the cache that hold something built: whole or absent, and built again if a file of theirs has changed."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from dev.lock import locked

_RECORD = "COMPLETE.json"


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != _RECORD
    }


def intact(folder: Path) -> bool:
    """Whether the folder holds exactly the files that were written into it."""
    try:
        return bool(json.loads((folder / _RECORD).read_text())["sha256"] == _digests(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def ensure(final: Path, build: Callable[[Path], None], report: Callable[[str], None]) -> Path:
    """The folder `final`; `build` fills it, under another name first, if it is missing or broken.

    A build that was interrupted leaves nothing under the final name, and the next one removes its remains.
    Raises whatever `build` raises.
    """
    with locked(final.parent / ".lock", f"another build of {final.parent.name}"):
        if intact(final):
            return final
        if final.exists():
            report(f"{final} is broken: building it again")
            shutil.rmtree(final)
        for remains in final.parent.glob(".new-*"):
            shutil.rmtree(remains)
        new = Path(tempfile.mkdtemp(dir=final.parent, prefix=".new-"))
        try:
            build(new)
            (new / _RECORD).write_text(json.dumps({"sha256": _digests(new)}, indent=2) + "\n")
            new.chmod(0o755)
            new.rename(final)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return final
