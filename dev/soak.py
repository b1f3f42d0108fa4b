"""Run the soak tests in slices: `python3 -m dev.soak [--slice NAME] [--fresh]`, from the project's environment.

A slice consists of the tests of one file that are marked `soak`; its name is that of the file without `test_`. Each set
of parameters of a parametrized test is a separate slice, such as `restart-5`. Slices that passed are recorded for the
current state of the tree, so that an interrupted run continues with the slice that was interrupted.
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
    """A name for the present content of the tree: the commit, and a hash of what differs from it."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("diff", "HEAD") + _git("ls-files", "--others", "--exclude-standard")
    return f"{commit.strip()[:12]}-{hashlib.sha256(changes.encode()).hexdigest()[:8]}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def slices() -> dict[str, list[str]]:
    """The soak tests by slice, as pytest's node ids.

    Raises:
        SystemExit: pytest cannot collect them.
    """
    collect = subprocess.run([*PYTEST, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True)
    if collect.returncode not in (0, NO_TESTS):
        sys.exit(collect.stdout + collect.stderr)
    return sliced(collect.stdout)


def sliced(collected: str) -> dict[str, list[str]]:
    """The slices in what pytest prints of its collection: a node id per line, among warnings of all kinds."""
    by_name: dict[str, list[str]] = {}
    for node, file, parameters in re.findall(r"^((\S+\.py)::[^\s\[]+(?:\[(.+)\])?)$", collected, re.MULTILINE):
        name = Path(file).stem.removeprefix("test_") + (f"-{parameters}" if parameters else "")
        by_name.setdefault(name, []).append(node)
    return by_name


def run(name: str, tests: list[str], done: Path) -> bool:
    """Run one slice; returns whether it passed, which `done` then remembers."""
    print(f"\nslice {name} ({len(tests)} tests)", flush=True)
    began = time.monotonic()
    code = subprocess.run([*PYTEST, "-q", *tests], cwd=ROOT, stdin=subprocess.DEVNULL).returncode
    print(f"slice {name}: {'passed' if code == 0 else 'failed'} in {time.monotonic() - began:.0f} s", flush=True)
    if code == 0:
        done.touch()
    return code == 0


def main() -> int:
    """Run the slices that have not passed yet; returns 0 when all have."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.soak", description=__doc__)
    parser.add_argument("--slice", help="run only this slice, even if it has already passed")
    parser.add_argument("--fresh", action="store_true", help="run all slices again, including those that passed")
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
