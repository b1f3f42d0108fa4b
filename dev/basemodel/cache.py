"""Where the pretrained model is kept: one folder per version of the code and of the libraries, whole or absent."""

import contextlib
import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from dev.uv import cache_dir, short_hash

_ROOT = Path(__file__).resolve().parents[1]
# All that decides what the model becomes.
_CODE = ("data/grammar.py", "data/reviews.py", "basemodel/corpus.py", "basemodel/tokenizer.py",
         "basemodel/chat_template.jinja", "basemodel/pretrain.py")  # fmt: skip
_LIBRARIES = ("torch", "transformers", "tokenizers")
_RECORD = "COMPLETE.json"


def code_key() -> str:
    """A hash of the code that makes the model, 12 hexadecimal digits."""
    return short_hash(*(part for name in _CODE for part in (name.encode(), (_ROOT / name).read_bytes())))


def libraries_key() -> str | None:
    """A hash of the libraries' versions, 12 hexadecimal digits; None where they are not installed."""
    try:
        return short_hash(*(f"{name}=={metadata.version(name)}".encode() for name in _LIBRARIES))
    except metadata.PackageNotFoundError:
        return None


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


def find() -> Path | None:
    """The model that this code and these libraries make, or None if it is not built or not intact.

    Where the libraries are not installed, the newest one that this code has made with any.
    """
    pattern = f"{code_key()}-{libraries_key() or '*'}"
    candidates = sorted((cache_dir() / "basemodel").glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    return next(filter(intact, candidates), None)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in the folder: a second build waits here for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure(make: Callable[[Path], None], report: Callable[[str], None]) -> Path:
    """The model's folder; `make` fills it if it is missing or broken.

    A build that was interrupted leaves nothing under the final name, and the next one removes its remains.
    Raises RuntimeError where the libraries are not installed, and whatever `make` raises.
    """
    libraries = libraries_key()
    if libraries is None:
        raise RuntimeError(f"{', '.join(_LIBRARIES)}: not installed for this python; run it from the project's .venv")
    root = cache_dir() / "basemodel"
    with _locked(root):
        final = root / f"{code_key()}-{libraries}"
        if intact(final):
            return final
        if final.exists():
            report(f"{final} is broken: building it again")
            shutil.rmtree(final)
        for remains in root.glob(".new-*"):
            shutil.rmtree(remains)
        new = Path(tempfile.mkdtemp(dir=root, prefix=".new-"))
        try:
            make(new)
            (new / _RECORD).write_text(json.dumps({"sha256": _digests(new)}, indent=2) + "\n")
            new.chmod(0o755)
            new.rename(final)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return final
