"""Run the test tiers stage by stage: `python3 -m dev.stages check|integration|test|e2e [-- pytest arguments]`.

Cheap stages run first, so that most mistakes appear within minutes. The first stage that fails ends the run. The last
line counts the tests of all stages, as pytest's last line does.
"""

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dev.uv import ROOT, cache_dir

PYTHON = ".venv/bin/python"
REPORTS = ROOT / "build" / "reports"
FAST_MARKERS = "not integration and not e2e and not train and not matrix and not soak and not gpu"
CHECK_MARKERS = f"{FAST_MARKERS} and not slow"
SLOW_MARKERS = f"{FAST_MARKERS} and slow"
# What fails in a cold cache after half an hour is worth seeing early, so tools and images have stages of their own.
CHECK_TOOLS = ("helm", "kubeconform")


@dataclass(frozen=True)
class Stage:
    """One command.

    tests: whether it is pytest, whose report is counted; its command then ends with pytest's own arguments.
    seconds: what it may take before it is ended as stuck.
    early: whether it is begun in the background at the start, out of the way of the stages before it; its own turn
        then finds the work done, or waits for it.
    """

    name: str
    command: tuple[str, ...]
    tests: bool = False
    seconds: int = 600
    early: bool = False


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def _pytest(name: str, markers: str, *paths: str, seconds: int, options: tuple[str, ...] = ()) -> Stage:
    command = (PYTHON, "-m", "pytest", "-q", "-m", markers, *options, *paths)
    return Stage(name, command, tests=True, seconds=seconds)


VENV = Stage("python environment", _python("-m", "dev.venv", "--quick"), seconds=2400)
CHECK = (
    VENV,
    Stage("lint", (PYTHON, "-m", "ruff", "check", "--quiet", ".")),
    Stage("format", (PYTHON, "-m", "ruff", "format", "--quiet", "--check", ".")),
    # The types of torch and transformers take two minutes to read once, so all clones share the cache.
    Stage("types", (PYTHON, "-m", "mypy", "--cache-dir", str(cache_dir() / "mypy"))),
    Stage("layers", (".venv/bin/lint-imports", "--no-logo")),
    Stage("generated files", (PYTHON, "-m", "hone.api.crds", "--check")),
    Stage("generated tables", (PYTHON, "-m", "dev.tables", "--check")),
    Stage("chart tools", _python("-m", "dev.cluster", "build", *CHECK_TOOLS), seconds=1800),
    _pytest("unit tests", CHECK_MARKERS, "tests", "trainer-image/tests", seconds=600, options=("-n", "2")),
)
SLOW = _pytest("slow unit tests", SLOW_MARKERS, "tests", "trainer-image/tests", seconds=900, options=("-n", "2"))
CONTROL_PLANE = Stage("control plane", _python("-m", "dev.cluster", "build"), seconds=2700, early=True)
# Two workers, each with whole files, whose tests share trainings or a control plane: one works where the other waits.
FILES = ("-n", "2", "--dist", "loadfile")
INTEGRATION = _pytest("integration tests", "integration and not alone", "tests", seconds=1200, options=FILES)
MEASURING = _pytest("integration tests that measure", "integration and alone", "tests", seconds=600)
TRAINER = _pytest("trainer tests", "train", "trainer-image/tests", "tests", seconds=2700, options=FILES)
MATRIX = _pytest("cells of the matrix", "matrix", "tests/matrix", seconds=1800)
CLUSTER = Stage("cluster", _python("-m", "dev.cluster", "up"), seconds=1800)
BASE_MODEL = Stage("base model", (PYTHON, "-m", "dev.basemodel", "build"), seconds=1800)
SMOLLM2 = Stage("SmolLM2", (PYTHON, "-m", "dev.smollm2", "build"), seconds=900)
IMAGES = Stage("images", _python("-m", "dev.images", "build"), seconds=3600)
E2E = _pytest("end-to-end tests", "e2e", "tests/e2e", seconds=3600, options=("-x", "-s"))

TIERS = {
    "check": CHECK,
    "integration": (VENV, CONTROL_PLANE, INTEGRATION, MEASURING),
    "test": (
        *CHECK,
        *(SLOW, CONTROL_PLANE, INTEGRATION, MEASURING, TRAINER),
        *(CLUSTER, BASE_MODEL, MATRIX, SMOLLM2, IMAGES, E2E),
    ),
    "e2e": (VENV, CLUSTER, BASE_MODEL, SMOLLM2, IMAGES, E2E),
}


@dataclass
class Counts:
    """Tests by how they ended, over all stages."""

    total: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("passed", "failed", "skipped"), 0))

    def add(self, report: Path) -> None:
        """Add the tests of a JUnit report; one that is not there adds nothing."""
        if not report.is_file():
            return
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            tests, failures, errors, skipped = (
                int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")
            )
            self.total["failed"] += failures + errors
            self.total["skipped"] += skipped
            self.total["passed"] += tests - failures - errors - skipped

    def line(self, seconds: float) -> str:
        """The closing line."""
        skipped = f", {self.total['skipped']} skipped" if self.total["skipped"] else ""
        return f"== {self.total['passed']} passed, {self.total['failed']} failed{skipped} in {seconds:.0f}s =="


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def command_of(stage: Stage, extra: tuple[str, ...]) -> tuple[str, ...]:
    """The stage's command, with the user's arguments and the report for pytest."""
    if not stage.tests:
        return stage.command
    return (*stage.command, f"--junitxml={report_of(stage)}", *extra)


def report_of(stage: Stage) -> Path:
    """Where pytest writes the stage's report."""
    return REPORTS / f"{stage.name.replace(' ', '-')}.xml"


def run(stage: Stage, extra: tuple[str, ...]) -> int:
    """Run one stage; returns its exit code, 124 when it took too long."""
    report_of(stage).unlink(missing_ok=True)
    process = subprocess.Popen(command_of(stage, extra), cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        return process.wait(timeout=stage.seconds)
    except subprocess.TimeoutExpired:
        print(f"stage '{stage.name}' did not end within {clock(stage.seconds)}: stopping it", flush=True)
        return 124
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the stage if it still runs: by SIGTERM first, so that tests can clean up."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_tier(stages: tuple[Stage, ...], extra: tuple[str, ...]) -> int:
    """Run the stages until one fails, printing how long each took; returns that one's exit code, else 0."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    ahead = [_begin(stage) for stage in stages if stage.early]
    try:
        return _in_turn(stages, extra)
    finally:
        for process in ahead:
            _stop(process)


def _begin(stage: Stage) -> subprocess.Popen[bytes]:
    """Start a stage in the background, at a low priority; its output goes to a log."""
    with report_of(stage).with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            ["nice", "-n", "10", *stage.command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _in_turn(stages: tuple[Stage, ...], extra: tuple[str, ...]) -> int:
    began, counts, failed = time.monotonic(), Counts(), ""
    took: list[tuple[str, float]] = []
    code = 0
    for number, stage in enumerate(stages, start=1):
        started = time.monotonic()
        print(f"\n[{clock(started - began)}] {number}/{len(stages)} {stage.name}", flush=True)
        code = run(stage, extra)
        took.append((stage.name, time.monotonic() - started))
        counts.add(report_of(stage))
        if code:
            failed = stage.name
            counts.total["failed"] += not stage.tests
            break
    print("\n" + "\n".join(_table(took)))
    if failed:
        print(f"\nstage '{failed}' failed with exit code {code}; the stages after it did not run")
    print(counts.line(time.monotonic() - began), flush=True)
    return code


def _table(took: list[tuple[str, float]]) -> Iterator[str]:
    width = max(len(name) for name, _ in took)
    for name, seconds in took:
        yield f"  {name.ljust(width)}  {clock(seconds):>7}"


def environment() -> None:
    """Set the environment as the Makefile does, so that both ways of running the stages are the same."""
    paths = (ROOT / "operator/src", ROOT / "trainer-image/src", ROOT)
    os.environ["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths)
    os.environ["PYTHONUNBUFFERED"] = "1"
    # Else each process compiles all of Hone's modules again, and each worker rewrites the asserts of all test files.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def main() -> int:
    """Run a tier; returns 0 when all its stages passed."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.stages", description=__doc__)
    parser.add_argument("tier", choices=sorted(TIERS), help="the tier to run")
    parser.add_argument("pytest_arguments", nargs="*", help="arguments for pytest, after --")
    arguments = parser.parse_args()
    environment()
    return run_tier(TIERS[arguments.tier], tuple(arguments.pytest_arguments))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
