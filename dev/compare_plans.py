"""Compare the Plans of another tree's core with this one's: `python -m dev.compare_plans REF [option...]`.

REF is a Git commit. The program runs the core of REF and the core of this tree on the inputs of the golden cases, those
of both trees. It prints each difference between two Plans as a unified diff, and exits 1 if there is any. It compares
the whole Plan: objects, status, events, the requeue, and the order of all keys. For intended changes:

    --ignore-label hone.dev/job            leaves out that label on both sides
    --replace hone_trainer.launch=hone_trainer.launcher.launch    replaces that text in REF's Plans
"""

import argparse
import difflib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from dev.uv import ROOT
from tests.golden.cases import Inputs, inputs

PRINTER = Path(__file__).with_name("golden_plans.py")


def main() -> int:
    """Print the differences; returns 1 where there is one."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="hone-tree-") as folder:
        tree = Path(folder)
        _export(options.ref, tree)
        cases = {f"{name} (as in {options.ref})": case for name, case in inputs(tree / "tests/golden")}
        old_inputs = list(cases.values())
        cases |= {name: case for name, case in inputs() if case not in old_inputs}
        before, after = plans(tree, list(cases.values())), plans(ROOT, list(cases.values()))
    differing = 0
    for name, old, new in zip(cases, before, after, strict=True):
        old, new = _without(options.ignore_label, old), _without(options.ignore_label, new)
        lines = difference(name, _replaced(options.replace, old), new)
        differing += bool(lines)
        print("".join(lines), end="")
    print(f"{len(cases)} cases compared with {options.ref}: {differing} Plans differ", file=sys.stderr)
    return int(differing > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dev.compare_plans", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ref", help="a commit, branch or tag")
    parser.add_argument("--ignore-label", action="append", default=[], metavar="LABEL", help="label to leave out")
    parser.add_argument(
        "--replace", action="append", default=[], metavar="OLD=NEW", help="text to replace in REF's Plans"
    )
    return parser.parse_args()


def _export(ref: str, folder: Path) -> None:
    """Write the tree of `ref` to `folder`, as far as the core and the golden cases need it."""
    command = ("git", "archive", ref, "operator/src", "tests/golden")
    archive = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def plans(tree: Path, cases: list[Inputs]) -> list[str]:
    """The Plan of each case as the core in `tree` makes it, as YAML."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tree / "operator/src"), str(tree)))}
    # -P: the printer's own folder holds modules of this tree.
    command = (sys.executable, "-P", str(PRINTER))
    answer = subprocess.run(
        command, input=json.dumps(cases), env=environment, cwd=tree, check=True, stdout=subprocess.PIPE, text=True
    )
    texts: list[str] = json.loads(answer.stdout)
    return texts


def _without(labels: list[str], text: str) -> str:
    """`text` without the lines of these labels, wherever they stand."""
    for label in labels:
        text = re.sub(rf"^ *{re.escape(label)}: .*\n", "", text, flags=re.MULTILINE)
    return text


def _replaced(pairs: list[str], text: str) -> str:
    for pair in pairs:
        old, _, new = pair.partition("=")
        text = text.replace(old, new)
    return text


def difference(name: str, old: str, new: str) -> list[str]:
    """The lines of a unified diff; empty where both are the same."""
    return list(
        difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"{name} before", f"{name} after", n=3)
    )


if __name__ == "__main__":
    sys.exit(main())
