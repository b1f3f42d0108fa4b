"""Run the soak tests in slices: `python3 -m dev.soak [--slice NAME] [--fresh]`, from the project's environment.

A slice is a test file with tests marked `soak`; its name is the file's, without `test_`. What has passed is remembered
for the present state of the tree, so that an interrupted run goes on with the slice that it was in.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

from dev.uv import ROOT, cache_dir

PYTEST = (sys.executable, "-m", "pytest", "-m", "soak")
NO_TESTS = 5
"""pytest's exit code for an empty selection."""


def state() -> str:
    """What stands for the present content of the tree: the commit, and what differs from it."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("diff", "HEAD") + _git("ls-files", "--others", "--exclude-standard")
    return f"{commit.strip()[:12]}-{hashlib.sha256(changes.encode()).hexdigest()[:8]}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def slices() -> dict[str, Path]:
    """The test files with soak tests, by the slice's name.

    Raises:
        SystemExit: pytest cannot collect them.
    """
    collect = subprocess.run([*PYTEST, "--collect-only", "-qq"], cwd=ROOT, capture_output=True, text=True)
    if collect.returncode not in (0, NO_TESTS):
        sys.exit(collect.stdout + collect.stderr)
    # With -qq a line is `<file>: <number of tests>`, among warnings of all kinds.
    files = re.findall(r"^(\S+\.py): \d+$", collect.stdout, re.MULTILINE)
    return {Path(file).stem.removeprefix("test_"): Path(file) for file in sorted(files)}


def run(name: str, file: Path, done: Path) -> bool:
    """Run one slice; returns whether it passed, which `done` then remembers."""
    print(f"\nslice {name} ({file})", flush=True)
    began = time.monotonic()
    code = subprocess.run([*PYTEST, "-q", str(file)], cwd=ROOT, stdin=subprocess.DEVNULL).returncode
    print(f"slice {name}: {'passed' if code == 0 else 'failed'} in {time.monotonic() - began:.0f} s", flush=True)
    if code == 0:
        done.touch()
    return code == 0


def main() -> int:
    """Run the slices that have not passed yet; returns 0 when all have."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.soak", description=__doc__)
    parser.add_argument("--slice", help="run this one, whether it has passed or not")
    parser.add_argument("--fresh", action="store_true", help="forget what has passed")
    arguments = parser.parse_args()
    known = slices()
    if not known:
        sys.exit("error: no test is marked soak")
    if arguments.slice and arguments.slice not in known:
        parser.error(f"no slice {arguments.slice!r}: choose from {', '.join(known)}")
    folder = cache_dir() / "soak" / state()
    folder.mkdir(parents=True, exist_ok=True)
    for name in known:
        if arguments.fresh or name == arguments.slice:
            (folder / name).unlink(missing_ok=True)
    chosen = [arguments.slice] if arguments.slice else [name for name in known if not (folder / name).exists()]
    print(f"{len(known)} slices, {len(known) - len(chosen)} of them not to be run: {', '.join(chosen) or 'none left'}")
    results = [run(name, known[name], folder / name) for name in chosen]
    print(f"== {sum(results)} passed, {len(results) - sum(results)} failed (slices) ==")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
