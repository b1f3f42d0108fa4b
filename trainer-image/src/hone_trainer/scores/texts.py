"""Metrics of an answer's text against its reference: each gives 0 to 1, or NaN where it does not apply."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from hone.contract.metrics import Metric
from hone_trainer.data.reasoning import visible
from hone_trainer.rewards.functions import f1, normalized
from hone_trainer.scores.calls import calls_in, same_calls

_ABSENT = object()
TextMetric = Callable[[str, str], float]
"""(answer, reference) -> figure. Both without reasoning, and without white space at both ends."""


def exact_match(answer: str, reference: str) -> float:
    """1 where the answer is the reference."""
    return float(answer == reference)


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words of both."""
    return f1(answer, [reference])


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words: 2 LCS / (words of the answer + words of the reference).

    C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, section 3.1, without stemming.
    """
    written, right = words(answer), words(reference)
    if not (written and right):
        return float(written == right)
    return 2 * common_subsequence(written, right) / (len(written) + len(right))


def words(text: str) -> list[str]:
    """The words of a text in order, without regard to case and punctuation."""
    return re.findall(r"\w+", normalized(text))


def common_subsequence(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, with one bit of an integer for each word of `second`.

    H. Hyyrö, "Bit-Parallel LCS-length Computation Revisited", 2004.
    """
    everywhere = (1 << len(second)) - 1
    places: dict[str, int] = {}
    for place, word in enumerate(second):
        places[word] = places.get(word, 0) | 1 << place
    free = everywhere
    for word in first:
        matches = free & places.get(word, 0)
        free = ((free + matches) | (free - matches)) & everywhere
    return len(second) - free.bit_count()


def parsed(text: str) -> Any:
    """The JSON object or array that a text is; None if it is none. A number or a string alone is a text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def json_valid(answer: str, reference: str) -> float:
    """1 where the answer is a JSON object or array, as the reference is."""
    right = parsed(reference)
    return math.nan if right is None else float(type(parsed(answer)) is type(right))


def json_fields(answer: str, reference: str) -> float:
    """Share of the fields of both with the same value: a missing field and one too many are wrong.

    A field is a value that is no object and no array, at its path; of an array, paths are positions.
    """
    right = parsed(reference)
    if right is None:
        return math.nan
    written = parsed(answer)
    if type(written) is not type(right):
        return 0.0
    fields, others = dict(_fields(written)), dict(_fields(right))
    every = fields.keys() | others.keys()
    same = sum(_same(fields.get(path, _ABSENT), others.get(path, _ABSENT)) for path in every)
    return same / len(every) if every else 1.0


def _fields(value: Any) -> list[tuple[tuple[str | int, ...], Any]]:
    """The fields with their paths. Without recursion: JSON may be nested as deeply as its parser takes."""
    fields: list[tuple[tuple[str | int, ...], Any]] = []
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while left:
        path, each = left.pop()
        if isinstance(each, dict | list) and each:
            inner = each.items() if isinstance(each, dict) else enumerate(each)
            left += [((*path, key), one) for key, one in inner]
        elif path:
            fields.append((path, each.strip() if isinstance(each, str) else each))
    return fields


def _same(first: Any, second: Any) -> bool:
    # In Python True is 1; in JSON it is not.
    return isinstance(first, bool) is isinstance(second, bool) and bool(first == second)


def tool_calls(answer: str, reference: str) -> float:
    """1 where the answer has the reference's tool calls, with the same arguments, in any order."""
    right = calls_in(reference)
    return float(same_calls(calls_in(answer), right)) if right else math.nan


TEXT_METRICS: Mapping[Metric, TextMetric] = {
    Metric.EXACT_MATCH: exact_match,
    Metric.TOKEN_F1: token_f1,
    Metric.ROUGE_L: rouge_l,
    Metric.JSON_FIELDS: json_fields,
    Metric.JSON_VALID: json_valid,
    Metric.TOOL_CALLS: tool_calls,
}


def measure(metric: Metric, answers: list[str], references: list[str]) -> list[float]:
    """A metric's figure of each answer, reasoning aside."""
    figure = TEXT_METRICS[metric]
    return [figure(visible(answer), visible(right)) for answer, right in zip(answers, references, strict=True)]
