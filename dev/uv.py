"""A pinned uv of our own, so that locks, the venv and the images are made by one version on every machine."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "dev" / "uv.lock"


def cache_dir() -> Path:
    """The cache outside the work tree, shared by all clones: $HONE_CACHE, default ~/.cache/hone."""
    return Path(os.environ.get("HONE_CACHE") or Path.home() / ".cache" / "hone")


def short_hash(*parts: bytes) -> str:
    """12 hex digits over the parts, each with its length, so that no two lists of parts run together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:12]


def version() -> str:
    """The version that dev/uv.lock pins."""
    match = re.search(r"^uv==(\S+)", LOCK.read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit(f"{LOCK}: no line `uv==<version>`")
    return match.group(1)


def environment() -> dict[str, str]:
    """The process environment with uv's cache placed under cache_dir(), where the images' builds find it too."""
    return {**os.environ, "UV_CACHE_DIR": str(cache_dir() / "uv"), "UV_PYTHON_DOWNLOADS": "never"}


def ensure() -> Path:
    """Path of the pinned uv; installs it by pip, checked by hash, into $HONE_CACHE/uv-<version> when it is missing."""
    target = cache_dir() / f"uv-{version()}"
    binary = target / "bin" / "uv"
    if binary.is_file() and subprocess.run([binary, "--version"], capture_output=True).returncode == 0:
        return binary
    print(f"installing uv {version()} into {target}", file=sys.stderr)
    target.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--upgrade"]
    subprocess.run([*pip, "--target", str(target), "-r", str(LOCK)], check=True)
    return binary
