"""Create the Python environment that tests and tools run in: `python3 -m dev.venv`.

The environment is in $HONE_CACHE/venv/<hash of the lock file>, and `.venv` in the work tree is a link to it. All clones
share it, so it holds only dependencies. hone and hone_trainer come from the tree by PYTHONPATH: the Makefile sets it,
and pyproject.toml sets it for pytest and mypy.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from dev import uv
from dev.lock import locked

LOCK = uv.ROOT / "dev" / "requirements.lock"
LINK = uv.ROOT / ".venv"
# Importing these reads most of what a half-written or half-deleted environment lacks.
PROBE = "import torch, transformers, trl, peft, datasets, deepspeed, kopf, kubernetes, pydantic, pytest"


def python_version() -> str:
    """Major and minor version of the interpreter that the environment is made from."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def location() -> Path:
    """Where the environment for this lock and this Python belongs."""
    key = uv.short_hash(LOCK.read_bytes(), python_version().encode(), sys.base_prefix.encode())
    return uv.cache_dir() / "venv" / key


def works(environment: Path, full: bool) -> bool:
    """Whether the environment is whole: its marker is there, its interpreter starts and, if full, the probe imports."""
    if not (environment / "COMPLETE").is_file():
        return False
    code = PROBE if full else "import pydantic, pytest"
    return subprocess.run([environment / "bin" / "python", "-c", code], capture_output=True).returncode == 0


def build(environment: Path, lock: Path = LOCK) -> None:
    """Recreate an environment from a lock in place; the marker is written last."""
    if environment.exists():
        print(f"{environment} is broken: recreating it", file=sys.stderr)
        shutil.rmtree(environment)
    binary, env = uv.ensure(), uv.environment()
    environment.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([binary, "venv", "--quiet", "--python", sys.executable, environment], env=env, check=True)
    install: list[str | Path] = [binary, "pip", "install", "--require-hashes", "--no-deps", "--compile-bytecode"]
    subprocess.run([*install, "--python", environment / "bin" / "python", "-r", lock], env=env, check=True)
    (environment / "COMPLETE").write_text("")


def link(environment: Path) -> None:
    """Point `.venv` at the environment."""
    if LINK.is_symlink():
        if LINK.resolve() == environment.resolve():
            return
        LINK.unlink()
    elif LINK.exists():
        raise SystemExit(f"{LINK} is a directory that dev.venv did not create: move it away and run again")
    LINK.symlink_to(environment)


def main() -> None:
    """Create or reuse the environment, check it and link it."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.venv", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="check an existing environment only briefly")
    arguments = parser.parse_args()
    if python_version() != "3.11":
        raise SystemExit(f"the images have Python 3.11, and this is {python_version()}: run python3.11 -m dev.venv")
    start = time.monotonic()
    environment = location()
    with locked(uv.cache_dir() / "venv.lock", "another clone that makes the environment"):
        if not works(environment, full=not arguments.quick):
            build(environment)
            if not works(environment, full=True):
                raise SystemExit(f"{environment} was created but does not import: {PROBE}")
        link(environment)
    print(f".venv -> {environment}  ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
