"""Product reviews as training rows: balanced, free of duplicates, in the formats that Hone reads."""

import random
from collections.abc import Callable, Iterator

from dev.data.grammar import LABELS, Review, write_review

MAX_ROWS = 1_000_000
"""Most rows of one data set. The scarcest kind of review has 14 times as many texts as that takes (tested), so
that leaving out duplicates shifts nothing."""

QUESTION = "Is this review positive or negative?"


def _chat(review: Review) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": f"{QUESTION}\n{review.text}"},
            {"role": "assistant", "content": review.label},
        ]
    }


def _prompt_completion(review: Review) -> dict[str, object]:
    return {"prompt": f"{QUESTION}\n{review.text}\n", "completion": review.label}


def _text_label(review: Review) -> dict[str, object]:
    return {"text": review.text, "label": review.label}


FORMATS: dict[str, Callable[[Review], dict[str, object]]] = {
    "chat": _chat,
    "prompt-completion": _prompt_completion,
    "text-label": _text_label,
}


def reviews(rows: int, seed: int) -> Iterator[Review]:
    """`rows` distinct reviews. The same seed gives the same reviews, and more rows only add to fewer.

    Labels are balanced: of each two rows one is positive. Raises ValueError if `rows` is not in 1..MAX_ROWS.
    """
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"rows: {rows} is not between 1 and {MAX_ROWS}; beyond that, reviews would repeat")
    return _distinct(rows, random.Random(seed))


def _distinct(rows: int, rng: random.Random) -> Iterator[Review]:
    seen: set[str] = set()
    labels: list[str] = []
    while len(seen) < rows:
        labels = labels or rng.sample(LABELS, 2)
        review = write_review(rng, labels[-1])
        if review.text not in seen:
            seen.add(review.text)
            labels.pop()
            yield review
