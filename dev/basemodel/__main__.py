"""Command line: `python3 -m dev.basemodel build` pretrains the base model; `path` prints its folder."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dev.basemodel import cache


def _reporter() -> Callable[[str], None]:
    started = time.monotonic()
    return lambda line: print(f"[base model, {time.monotonic() - started:4.0f} s] {line}", file=sys.stderr, flush=True)


def _make(report: Callable[[str], None]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        report("importing torch and transformers")
        # On a busy machine, threads that spin while they wait for each other take several times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Only here: `path` runs where torch is not installed.
        from dev.basemodel.pretrain import pretrain

        pretrain(folder, report)

    return make


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.basemodel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="pretrain the model if it is not in the cache, then print its folder")
    commands.add_parser("path", help="print the folder of the model; fails if the model has not been built")
    command = parser.parse_args(arguments).command
    if command == "build":
        report = _reporter()
        try:
            print(cache.ensure(_make(report), report))
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    folder = cache.find()
    if folder is None:
        print("error: the base model is not built: run `python3 -m dev.basemodel build`", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
