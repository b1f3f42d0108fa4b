"""The shapes that a review may have as a row: those of `dev.data.reviews`, and answers to it, good and bad ones.

In a module of its own, since the base model is made from that one: a change there would rebuild it.
"""

import zlib
from collections.abc import Callable

from dev.data import reviews
from dev.data.grammar import POSITIVE, Review, opposite
from dev.data.reviews import QUESTION


def _prompt(review: Review) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{QUESTION}\n{review.text}"}]


def _answer(label: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": label}]


def _preference(review: Review) -> dict[str, object]:
    return {
        "prompt": _prompt(review),
        "chosen": _answer(review.label),
        "rejected": _answer(opposite(review.label)),
    }


def _unpaired_preference(review: Review) -> dict[str, object]:
    # Half of the answers are right; which ones, the text decides, so that more rows only add to fewer.
    good = zlib.crc32(review.text.encode()) % 2 == 0
    answer = review.label if good else opposite(review.label)
    return {"prompt": _prompt(review), "completion": _answer(answer), "label": good}


def _prompt_reference(review: Review) -> dict[str, object]:
    # The base model gives good reviews five stars about as often as four, and bad ones one as often as two; what it
    # says first is mostly the extreme.
    question = f"How many stars is this review worth?\n{review.text}"
    reference = "Four stars." if review.label == POSITIVE else "Two stars."
    return {"prompt": [{"role": "user", "content": question}], "reference": reference}


FORMATS: dict[str, Callable[[Review], dict[str, object]]] = {
    **reviews.FORMATS,
    "preference": _preference,
    "unpaired-preference": _unpaired_preference,
    "prompt": _prompt_reference,
}
