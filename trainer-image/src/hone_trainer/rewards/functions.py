"""The reward functions of the list: figures of an answer's text, 0 to 1."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hone.contract.rewards import RewardFunction, RewardName
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.limits import TooLong, limited

LIMIT_SECONDS = 20.0
"""For the answers of one call. A pattern without nested repeats takes milliseconds."""
Completion = str | list[dict[str, Any]]
Reference = str | list[str] | None
Rewarding = Callable[..., list[float | None]]
"""A reward as TRL calls it."""


def text_of(completion: Completion) -> str:
    """What an answer says; of several turns the last one."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def references_of(reference: Reference) -> list[str]:
    """The references of a row, whether there is none, one or several."""
    return [] if reference is None else [reference] if isinstance(reference, str) else list(reference)


def normalized(text: str) -> str:
    """The text without regard to case, spacing and Unicode's variants."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references, else 0; both normalized."""
    return float(normalized(answer) in map(normalized, references))


def contains(answer: str, references: Sequence[str]) -> float:
    """1 where the answer holds one of the references, else 0; both normalized."""
    text = normalized(answer)
    return float(any(normalized(reference) in text for reference in references))


def f1(answer: str, references: Sequence[str]) -> float:
    """F1 of the answer's words against those of the nearest reference, 0 to 1.

    As for SQuAD (P. Rajpurkar et al., arXiv 1606.05250, section 6.1): words are counted as often as they occur, without
    punctuation; unlike there, articles count.
    """
    return max((_f1(_words(answer), _words(reference)) for reference in references), default=0.0)


def _f1(answer: Counter[str], reference: Counter[str]) -> float:
    common = (answer & reference).total()
    return 2 * common / (answer.total() + reference.total()) if common else 0.0


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", normalized(text)))


_COMPARING: dict[RewardName, Callable[[str, Sequence[str]], float]] = {
    RewardName.EXACT_MATCH: exact_match,
    RewardName.CONTAINS: contains,
    RewardName.F1: f1,
}


def named(field: str, function: RewardFunction) -> Rewarding:
    """A function of the list, as TRL calls it; `field` of the spec is its own."""
    if function.name is None:
        raise ValueError(f"{function.label} is none of the list")
    if function.name is RewardName.REGEX:
        return _matching(f"{field}.pattern", function.pattern or "")
    figure = _COMPARING[function.name]

    def reward(completions: Sequence[Completion], reference: Sequence[Reference], **_: Any) -> list[float | None]:
        return [figure(text_of(one), references_of(those)) for one, those in zip(completions, reference, strict=True)]

    return reward


def _matching(field: str, pattern: str) -> Rewarding:
    """Whether each answer has a match of the pattern, found within a time limit."""
    search = re.compile(pattern).search

    def reward(completions: Sequence[Completion], **_: Any) -> list[float | None]:
        try:
            with limited(LIMIT_SECONDS):
                return [float(search(text_of(one)) is not None) for one in completions]
        except TooLong as error:
            raise BadInput(
                field,
                f"`{pattern}` took longer than {LIMIT_SECONDS:g} s on {len(completions)} answers",
                "Write it without repeats inside of repeats, such as (a+)+, which try every way to divide a text.",
            ) from error

    return reward
