"""Command line: `python3 -m dev.data reviews --format chat --rows 600 --seed 1 --out FILE`, or `tickets`."""

import argparse
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dev.data import tickets
from dev.data.formats import FORMATS
from dev.data.reviews import MAX_ROWS, reviews


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name only once it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m dev.data", description=__doc__)
    data_sets = parser.add_subparsers(dest="data_set", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, default=0, help="the same seed gives the same rows (default: 0)")
    common.add_argument("--out", type=Path, help="JSONL file to write (default: standard output)")
    command = data_sets.add_parser(
        "reviews", parents=[common], help="product reviews whose sentiment cannot be told from a single word"
    )
    command.add_argument("--format", choices=FORMATS, default="chat", help="format of the rows (default: chat)")
    command.add_argument(
        "--rows", type=int, required=True, help=f"number of rows, 1 to {MAX_ROWS}; half of them are positive"
    )
    command = data_sets.add_parser(
        "tickets", parents=[common], help="messages to a shop's support, and their fields as a JSON object"
    )
    command.add_argument("--rows", type=int, required=True, help=f"number of rows, 1 to {tickets.MAX_ROWS}")
    return parser


def _rows(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    if options.data_set == "tickets":
        return itertools.starmap(tickets.chat_row, tickets.tickets(options.rows, options.seed))
    return map(FORMATS[options.format], reviews(options.rows, options.seed))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with _whole_file(options.out) if options.out else contextlib.nullcontext(sys.stdout) as file:
            for row in _rows(options):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except ValueError as error:
        parser.error(str(error))
    except BrokenPipeError:
        # The reader (`head`) has seen enough; nothing is left to flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
