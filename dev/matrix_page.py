"""The page docs/matrix.md, from the outcomes of `dev.matrix`."""

from collections.abc import Mapping
from typing import Protocol

from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES

_HEAD = """# What combines with what

Made by `make matrix`; do not edit. Cells are tried on the CPU with the small base model of this repository:
prepared, trained for three steps by the launcher that runs in pods, exported and scored. What is refused is refused
before any trainer pod runs.

- **ran**: trained, exported and scored
- **refused**: with the sentence below the table
- –: not tried yet
"""


class Outcome(Protocol):
    """How a cell ended."""

    result: str
    words: str
    seconds: float


def render(outcomes: Mapping[str, Outcome], placements: list[str]) -> str:
    """The page.

    Args:
        found: outcomes by cell, objective/method/placement or objective/example.
        placements: the columns.
    """
    notes: list[str] = []
    rows = [f"| objective | method | {' | '.join(placements)} |", f"|---|---|{'---|' * len(placements)}"]
    for objective in OBJECTIVES:
        for method in MethodType:
            shown = [_cell(outcomes.get(f"{objective}/{method}/{place}"), notes) for place in placements]
            rows.append(f"| {objective} | {method} | {' | '.join(shown)} |")
    parts = [_HEAD, "\n".join(rows) + "\n"]
    if notes:
        parts.append("\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1)) + "\n")
    parts.append(_examples(outcomes))
    return "\n".join(parts)


def _cell(outcome: Outcome | None, notes: list[str]) -> str:
    if outcome is None:
        return "–"
    if outcome.result == "ran":
        return "ran"
    note = " ".join(outcome.words.split())[:400]
    if note not in notes:
        notes.append(note)
    return f"{outcome.result} ({notes.index(note) + 1})"


def _examples(outcomes: Mapping[str, Outcome]) -> str:
    lines = [
        "## Improved outside the interval",
        "",
        "Each objective's first example in `examples/`, run as it stands in one process; the improvement with its 95 %",
        "interval.",
        "",
        "| objective | outcome | base → tuned | seconds |",
        "|---|---|---|---|",
    ]
    for objective in OBJECTIVES:
        outcome = outcomes.get(f"{objective}/example")
        if outcome:
            lines.append(f"| {objective} | {outcome.result} | {outcome.words} | {outcome.seconds:.0f} |")
    return "\n".join(lines) + "\n"
