"""Where SmolLM2 is kept: one folder per package and code that converts it, whole or absent."""

from collections.abc import Callable
from pathlib import Path

from dev import folders, uv

LOCK = uv.ROOT / "dev/smollm2/requirements.lock"
_CODE = (LOCK, Path(__file__).with_name("convert.py"))


def folder() -> Path:
    """Where the model is once it is built."""
    return uv.cache_dir() / "smollm2" / uv.short_hash(*(path.read_bytes() for path in _CODE))


def find() -> Path | None:
    """The model's folder, or None if it is not built or not intact."""
    return folder() if folders.intact(folder()) else None


def ensure(build: Callable[[Path], None], report: Callable[[str], None]) -> Path:
    """The model's folder; `build` fills it if it is missing or broken. Raises whatever `build` raises."""
    return folders.ensure(folder(), build, report)
