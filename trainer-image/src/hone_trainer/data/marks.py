"""Added tokens that part a text, such as those of turns: what becomes of one side does not depend on the other.

Where they stand tells where an answer begins and ends among the tokens, without the offsets of every token.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from hone_trainer.data.token_ids import Offsets, token_ids

if TYPE_CHECKING:
    from transformers import AddedToken, PreTrainedTokenizerBase

_REPEATED = 64
"""Characters of the longest text whose tokens are stored."""


@dataclass(frozen=True)
class MarkedText:
    """A text that ends with a mark, as tokens, and all marks in it.

    Attributes:
        tokenizer: the model's.
        text: the text.
        ids: its tokens.
        places: the first character of each mark, and the one after its last.
        indices: the token of each mark.
    """

    tokenizer: "PreTrainedTokenizerBase"
    text: str
    ids: list[int]
    places: list[tuple[int, int]]
    indices: list[int]

    def index_at(self, begin: int) -> int | None:
        """Index of the first token after `begin` characters; None if these have other tokens alone."""
        before = bisect_right(self.places, begin, key=lambda place: place[1])
        place, index = (self.places[before - 1][0], self.indices[before - 1]) if before else (0, 0)
        rest = encode_part(self.tokenizer, self.text[place:begin])
        after = index + len(rest)
        return after if tuple(self.ids[index:after]) == rest else None

    def parts(self, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]] | None:
        """The tokens of spans of characters that end with marks; None if another does, or a beginning is not known."""
        ends = {end: index for (_, end), index in zip(self.places, self.indices, strict=True)}
        result = []
        for low, high in spans:
            first, last = self.index_at(low), ends.get(high)
            if first is None or last is None:
                return None
            result.append((first, last + 1))
        return result


def marked_text(tokenizer: "PreTrainedTokenizerBase", text: str) -> MarkedText | None:
    """A text with its marks; None where it does not end with one, or it is not certain which tokens they are."""
    marks = _exact_marks(tokenizer)
    if marks is None or not text.rstrip().endswith(marks.ends):
        return None
    matches = [*marks.pattern.finditer(text)]
    names = [each[0] for each in matches]
    if not marks.ids.keys() >= {*names}:
        return None
    ids, counts = token_ids(tokenizer, text, special=False), Counter(names)
    indices: list[int] = []
    try:
        for name in names:
            indices.append(ids.index(marks.ids[name], indices[-1] + 1 if indices else 0))
    except ValueError:
        return None
    # The same id may stand for words that the tokenizer does not know.
    if any(ids.count(marks.ids[name]) != count for name, count in counts.items()):
        return None
    return MarkedText(tokenizer, text, ids, [each.span() for each in matches], indices)


@dataclass(frozen=True)
class _Marks:
    """The marks of a tokenizer.

    Attributes:
        pattern: finds them, and what else is found in the text as it stands, as the tokenizer does.
        ids: those that take nothing of the text around them.
        ends: the same.
    """

    pattern: re.Pattern[str]
    ids: dict[str, int]
    ends: tuple[str, ...]


@lru_cache(maxsize=16)
def _exact_marks(tokenizer: "PreTrainedTokenizerBase") -> _Marks | None:
    """The marks of a tokenizer; None if it has none."""
    added = {i: token for i, token in _added(tokenizer).items() if not token.normalized and token.content}
    ids = {t.content: i for i, t in added.items() if not (t.lstrip or t.rstrip or t.single_word)}
    # The longest one at a place counts, so it is tried first.
    names = sorted((token.content for token in added.values()), key=len, reverse=True)
    return _Marks(re.compile("|".join(map(re.escape, names))), ids, tuple(ids)) if ids else None


def last_mark(tokenizer: "PreTrainedTokenizerBase", text: str, ids: list[int], offsets: Offsets) -> int:
    """Index of the last token of a text that parts it, so that what precedes it has the same tokens however the text
    continues; 0 where there is none.

    Args:
        tokenizer: the model's.
        text: the beginning of a text.
        ids: the tokens of the whole text.
        offsets: their characters.
    """
    marks = _marks(tokenizer)
    for i in range(bisect_left(offsets, (len(text), 0)) - 1, 0, -1):
        # The same id may stand for words that the tokenizer does not know.
        if ids[i] in marks and text.startswith(marks[ids[i]], offsets[i][0]):
            return i
    return 0


@lru_cache(maxsize=16)
def _marks(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """The added tokens that a tokenizer finds in the text as it stands, before anything else of it becomes tokens."""
    added = _added(tokenizer).items()
    return {i: token.content for i, token in added if not (token.normalized or token.lstrip or token.single_word)}


def _added(tokenizer: "PreTrainedTokenizerBase") -> "dict[int, AddedToken]":
    return tokenizer.added_tokens_decoder


def encode_part(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    """The ids of a text; those of short ones, such as what opens an answer, are the same in every row."""
    return (
        _encode_again(tokenizer, text) if len(text) <= _REPEATED else tuple(token_ids(tokenizer, text, special=False))
    )


@lru_cache(maxsize=1024)
def _encode_again(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    return tuple(token_ids(tokenizer, text, special=False))
