"""Tool calls in answers: whether an answer has the calls of the reference, with their names and arguments."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = tuple[str, dict[str, Any]]
"""The name of a function, and its arguments."""


@dataclass(frozen=True)
class _Calls:
    """For each row whose reference has calls, how far an answer has the same."""

    written: np.ndarray
    named: np.ndarray
    right: np.ndarray


def calls_in(text: str) -> list[Call]:
    """The calls in a text, in order: each JSON object with a name and arguments (or parameters), whatever the template
    writes around it."""
    calls, decoder, start = [], json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            value, end = None, start + 1
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            arguments = value.get("arguments", value.get("parameters"))
            if isinstance(arguments, dict):
                calls.append((value["name"], arguments))
        start = text.find("{", end)
    return calls


def same_calls(written: list[Call], right: list[Call]) -> bool:
    """Whether both are the same calls, in any order."""
    return _written(written) == _written(right)


def how_far(base: list[str], tuned: list[str], references: list[str]) -> str | None:
    """A sentence on how far answers have the calls of the references; None if no reference has any.

    Args:
        base, tuned: answers of both models.
        references: the right answers.
    """
    expected = {i: calls for i, text in enumerate(references) if (calls := calls_in(text))}
    if not expected:
        return None
    of_base, of_tuned = (_compare(answers, expected) for answers in (base, tuned))
    written, named, right = (
        f"{mine.sum()} ({its.sum()})"
        for mine, its in (
            (of_tuned.written, of_base.written),
            (of_tuned.named, of_base.named),
            (of_tuned.right, of_base.right),
        )
    )
    return (
        f"Of {len(expected)} answers that should call tools, {written} of the tuned (base) model have a call, {named} "
        f"those of the right names, {right} with the right arguments."
    )


def _compare(answers: list[str], expected: dict[int, list[Call]]) -> _Calls:
    pairs = [(calls_in(answers[i]), calls) for i, calls in expected.items()]
    return _Calls(
        written=np.array([bool(calls) for calls, _ in pairs], dtype=bool),
        named=np.array([_names(calls) == _names(right) for calls, right in pairs], dtype=bool),
        right=np.array([same_calls(calls, right) for calls, right in pairs], dtype=bool),
    )


def _names(calls: list[Call]) -> list[str]:
    return sorted(name for name, _ in calls)


def _written(calls: list[Call]) -> list[str]:
    return sorted(json.dumps(call, sort_keys=True) for call in calls)
