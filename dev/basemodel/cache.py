"""Where the pretrained model is kept: one folder per version of the code and of the libraries, whole or absent."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from dev import folders
from dev.uv import cache_dir, short_hash

_ROOT = Path(__file__).resolve().parents[1]
# All that decides what the model becomes.
_CODE = ("data/grammar.py", "data/reviews.py", "basemodel/corpus.py", "basemodel/tokenizer.py",
         "basemodel/chat_template.jinja", "basemodel/pretrain.py")  # fmt: skip
_LIBRARIES = ("torch", "transformers", "tokenizers")


def code_key() -> str:
    """A hash of the code that makes the model, 12 hexadecimal digits."""
    return short_hash(*(part for name in _CODE for part in (name.encode(), (_ROOT / name).read_bytes())))


def libraries_key() -> str | None:
    """A hash of the libraries' versions, 12 hexadecimal digits; None where they are not installed."""
    try:
        return short_hash(*(f"{name}=={metadata.version(name)}".encode() for name in _LIBRARIES))
    except metadata.PackageNotFoundError:
        return None


def find() -> Path | None:
    """The model that this code and these libraries make, or None if it is not built or not intact.

    Where the libraries are not installed, the newest one that this code has made with any.
    """
    pattern = f"{code_key()}-{libraries_key() or '*'}"
    candidates = sorted((cache_dir() / "basemodel").glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    return next(filter(folders.intact, candidates), None)


def ensure(make: Callable[[Path], None], report: Callable[[str], None]) -> Path:
    """The model's folder; `make` fills it if it is missing or broken.

    Raises RuntimeError where the libraries are not installed, and whatever `make` raises.
    """
    libraries = libraries_key()
    if libraries is None:
        raise RuntimeError(f"{', '.join(_LIBRARIES)}: not installed for this python; run it from the project's .venv")
    return folders.ensure(cache_dir() / "basemodel" / f"{code_key()}-{libraries}", make, report)
