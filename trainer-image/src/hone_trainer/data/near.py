"""Near-duplicates across splits: rows whose prompts differ by little, so that a test of one says little of the model.

Each prompt has a sketch: its words where there are few, else the smallest hashes of its runs of three words. Prompts of
which nearly all runs are the same have mostly the same sketch (A. Broder, On the resemblance and containment of
documents, 1997); so it finds some of them and hardly any other, and the count is a least one.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable

from hone_trainer.data.sample import Sample
from hone_trainer.data.splits import normalized

FEW_WORDS, RUN, SMALLEST = 12, 3, 4
MOST_WORDS = 120
"""Of a prompt: longer ones are compared up to here."""
MAX_CHARACTERS = 4000
MOST_ALIKE = 5
"""A sketch that more rows have comes from an instruction that all prompts begin with, or from a template."""
_WORDS = re.compile(r"\w+")
_SPACED = {code: " " for code in range(128) if not _WORDS.match(chr(code))}
"""What parts words in ASCII, which most texts are, as spaces: these are split in a third of the time."""


def sketch(sample: Sample) -> int:
    """The sketch of what comes before the answer, without system messages; 0 where there are no words."""
    if sample.is_chat:
        turns = sample.messages[: sample.answer_start]
        text = " ".join(str(turn["content"]) for turn in turns if turn["role"] not in ("system", "developer"))
    else:
        text = sample.prompt
    words = _words(text[:MAX_CHARACTERS])[:MOST_WORDS]
    if not words:
        return 0
    if len(words) < FEW_WORDS:
        return _hash(" ".join(words)) << 32 | len(words)
    encoded = [word.encode(errors="surrogatepass") for word in words]
    runs = set(map(zlib.crc32, map(b" ".join, zip(*(encoded[start:] for start in range(RUN)), strict=False))))
    return sum(value << 32 * place for place, value in enumerate(sorted(runs)[:SMALLEST]))


def _words(text: str) -> list[str]:
    return text.lower().translate(_SPACED).split() if text.isascii() else _WORDS.findall(normalized(text))


def _hash(text: str) -> int:
    return zlib.crc32(text.encode(errors="surrogatepass"))


def near_duplicates(rows: Iterable[tuple[int, str | None, bytes]]) -> int:
    """How many training rows have the sketch of a test row, but not its prompt.

    Args:
        rows: sketch, split and prompt's key of each row.
    """
    rows = [row for row in rows if row[0] and row[1] is not None]
    alike = Counter(mark for mark, _, _ in rows)
    tested = {(mark, prompt) for mark, split, prompt in rows if split == "test"}
    marks, prompts = {mark for mark, _ in tested}, {prompt for _, prompt in tested}
    return sum(
        split == "train" and mark in marks and prompt not in prompts and alike[mark] <= MOST_ALIKE
        for mark, split, prompt in rows
    )


def warning(count: int) -> list[str]:
    """A sentence about near-duplicates; none where there are none."""
    if not count:
        return []
    return [
        f"At least {count} training rows are near-duplicates of test rows: their prompts differ by few words, or by "
        "punctuation alone. The scores may look better than they are. Remove them, or give rows that belong together "
        "the same value in a column group and set spec.dataset.splitBy to Column."
    ]
