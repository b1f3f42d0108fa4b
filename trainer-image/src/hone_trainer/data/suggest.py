"""Which of a row's own columns are probably meant where the columns of every format are missing: advice, never used."""

from collections.abc import Iterator, Sequence
from typing import Any

from hone.contract.settings import DataFormat
from hone_trainer.data.formats import COLUMNS, FORMATS, OPTIONAL_COLUMNS
from hone_trainer.protocol.errors import plain_names

_QUESTION = ("question", "query", "problem", "user", "user_input", "article", "document")
_ANSWER = ("response", "answer", "solution", "target", "summary", "assistant")
_NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("chat", "dialog", "dialogue", "conversation", "turns"),
    "prompt": ("instruction", *_QUESTION, "input"),
    "completion": (*_ANSWER, "output"),
    "instruction": ("prompt", *_QUESTION),
    "input": ("context",),
    "output": ("completion", *_ANSWER),
    "system": ("system_prompt", "system_message"),
    "text": ("sentence", "review", "content", "body", "question", "input"),
    "label": ("class", "category", "intent", "sentiment", "target"),
    "chosen": ("chosen_response", "preferred", "accepted", "response"),
    "rejected": ("rejected_response", "dispreferred"),
    "reference": ("answer", "solution", "final_answer", "target"),
}
"""Other names that people have for Hone's columns, the likeliest first."""


def suggestion(row: dict[str, Any], formats: Sequence[DataFormat]) -> str | None:
    """A sentence with the `spec.dataset.columns` that make a row one of these formats; None if no names fit.

    Args:
        row: as it was read.
        formats: the objective's.
    """
    fits = [columns for format in formats if (columns := _columns(row, format))]
    # Where a row fits several formats, the one that leaves fewest of its columns out.
    best = max(fits, key=len, default={})
    mapped = [f"{name}: {path}" for name, path in best.items() if name != path]
    if not mapped or plain_names(best.values()).count("`") < 2 * len(best):
        return None
    return f"If their names say what they hold, set spec.dataset.columns to {{{', '.join(mapped)}}}."


def _columns(row: dict[str, Any], format: DataFormat) -> dict[str, str]:
    """The paths of a format's columns in a row, by Hone's names; empty if one that it needs is missing."""
    result: dict[str, str] = {}
    # A prompt that is plain text has no system turn.
    known = {*OPTIONAL_COLUMNS, "prompt"} - ({"system"} if format is DataFormat.PROMPT_COMPLETION else set())
    for name in (*COLUMNS[format], *(name for name in FORMATS[format].optional if name in known)):
        path = next((path for path in _paths(row, name) if path not in result.values()), None)
        if path is not None:
            result[name] = path
        elif name in COLUMNS[format]:
            return {}
    return result


def _paths(row: dict[str, Any], name: str) -> Iterator[str]:
    """Where a row may hold a column: under its name, in an object, under other names."""
    inner = {
        f"{outer}.{key}": value for outer, held in row.items() if isinstance(held, dict) for key, value in held.items()
    }
    for other in (name, *_NAMES.get(name, ())):
        for path, value in (*row.items(), *inner.items()):
            if path.rpartition(".")[2].lower() == other and _fits(name, value):
                yield path


def _fits(name: str, value: Any) -> bool:
    """Whether a value may be what the column holds; `input` and `system` are empty in many rows."""
    turns = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    turns = turns and not {"role", "from"}.isdisjoint(value[0])
    if name in ("messages", "conversations"):
        return turns
    if name == "label":
        return isinstance(value, str | int | float)
    return (isinstance(value, str) and (name in ("input", "system") or bool(value.strip()))) or turns
