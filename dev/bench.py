"""Measure Hone's speed: `python3 -m dev.bench [part...]`, from the project's environment.

Parts (default: all):

    decisions   time of the operator's decisions, on the golden cases
    steps       time of a training step, Hone against plain TRL with the same model, rows and settings, on the CPU
    prepare     rows per second of preparing data, Hone against `datasets.map`, and memory
    defaults    tokens per second, Hone's default settings against TRL's, on short and on long samples, on the CPU

Prints tables, and writes the figures to build/bench.json.
"""

import argparse
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dev.uv import ROOT

RESULT = ROOT / "build" / "bench.json"
STEPS = 300
TURNS = 10
DECISIONS = 200
ROWS = 20_000


def decisions(options: argparse.Namespace, directory: Path) -> tuple[Any, str]:
    """The operator's decisions."""
    from dev import bench_decisions

    figures = bench_decisions.bench(options.decisions)
    return figures, bench_decisions.table(figures)


def steps(options: argparse.Namespace, directory: Path) -> tuple[Any, str]:
    """A training step's time against a plain TRL script's."""
    from dev import bench_training

    figures = bench_training.bench_steps(directory, options.steps, options.threads, _print_progress)
    return figures, bench_training.steps_table(figures)


def defaults(options: argparse.Namespace, directory: Path) -> tuple[Any, str]:
    """Tokens per second with each one's own choices."""
    from dev import bench_training

    figures = bench_training.bench_defaults(directory, options.turns, options.threads, _print_progress)
    return figures, bench_training.defaults_table(figures)


def prepare(options: argparse.Namespace, directory: Path) -> tuple[Any, str]:
    """Rows per second of the prepare step against `datasets.map` with as many processes."""
    from dev import bench_prepare

    figures = bench_prepare.bench(directory, options.rows, _print_progress)
    return figures, bench_prepare.table(figures)


PARTS = {"decisions": decisions, "prepare": prepare, "steps": steps, "defaults": defaults}


def _print_progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line}   ", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run the selected parts."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part", help="what to measure (default: all)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps per side (default: {STEPS})")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"turns of the part `defaults` (default: {TURNS})")
    parser.add_argument(
        "--decisions", type=int, default=DECISIONS, help=f"decisions per golden case (default: {DECISIONS})"
    )
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of the part `prepare` (default: {ROWS})")
    parser.add_argument("--threads", type=int, default=1, help="threads per training process (default: 1)")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "loadBefore": os.getloadavg(),
    }
    for part in options.parts or PARTS:
        print(f"\n{PARTS[part].__doc__}\n", flush=True)
        with tempfile.TemporaryDirectory(prefix="hone-bench-") as directory:
            result[part], table = PARTS[part](options, Path(directory))
        print(table, flush=True)
    result["loadAfter"] = os.getloadavg()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    load = ", ".join(f"{result[when][0]:.1f}" for when in ("loadBefore", "loadAfter"))
    print(f"\nload of the {os.cpu_count()} cores before and after: {load}; all figures: {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
