"""Reports of finished runs: writes the page of one, or compares two.

    python -m hone_trainer.report RUN [--out report.html] [--without-rows] [--job job.json]
    python -m hone_trainer.report RUN OTHER

RUN is a report.json, or the directory that has it, such as the root of a job's output claim. Needs no cluster, no GPU
and no model.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from hone.contract.report import PAGE_FILE, REPORT_FILE, Report
from hone_trainer.reports.comparison import compare
from hone_trainer.reports.job import load_gate
from hone_trainer.reports.page import render


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 where a report cannot be read."""
    parser = argparse.ArgumentParser(prog="hone_trainer.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="report.json, or the directory that has it")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="the same of another run, to compare with RUN")
    parser.add_argument("--out", metavar="FILE", help=f"page to write; default: {PAGE_FILE} next to {REPORT_FILE}")
    parser.add_argument("--without-rows", action="store_true", help="leave out rows of the test data")
    parser.add_argument("--job", metavar="FILE", help="output of kubectl get finetunejob NAME -o json, for the gate")
    options = parser.parse_args(arguments)
    if options.other and (options.out or options.without_rows or options.job):
        parser.error("--out, --without-rows and --job are for the page of one run; remove them to compare two")
    if options.without_rows and not options.out:
        parser.error(f"--without-rows needs --out, so that the complete {PAGE_FILE} is not replaced")
    try:
        report = load(options.run)
        if options.other:
            print(compare(report, load(options.other)))
            return 0
        gate = load_gate(options.job, report.job.uid) if options.job else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    page = Path(options.out) if options.out else _file(options.run).with_name(PAGE_FILE)
    page.write_bytes(render(report, rows=not options.without_rows, gate=gate).encode(errors="replace"))
    print(page)
    return 0


def _file(path: str) -> Path:
    return Path(path) / REPORT_FILE if Path(path).is_dir() else Path(path)


def load(path: str) -> Report:
    """The report at a path.

    Raises:
        ValueError: there is none, or it is no report, in words for the one who named it.
    """
    file = _file(path)
    try:
        return Report.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ValueError(
            f"{file}: {error.strerror}. Name a report.json, or the directory that has it: the root of the claim in "
            "status.artifact.claim of a finished job."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{file}: is not a report of Hone ({field or 'the file'}: {first['msg']}). Name the report.json that a "
            "job's finish step wrote."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
