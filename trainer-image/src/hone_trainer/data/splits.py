"""Which split a row belongs to: by a hash of what is asked, so that a row never moves when others come or go."""

import hashlib
import json
import unicodedata

from hone_trainer.data.formats import Message, Sample

_RANGE = 2**64


def prompt_key(sample: Sample, *, written: bool = False) -> bytes:
    """A digest of what comes before the answer, without regard to case, spacing or Unicode's variants.

    Rows that ask the same get the same key and thus the same split, so that no answer is learned that is tested.

    Args:
        sample: the row.
        written: whether the model writes the answers itself, to what comes before the completion: of one with several
            turns, not only the last.
    """
    if sample.is_chat:
        end = sample.completion_start if written else sample.answer_start
        asked: tuple[Message, ...] | str = sample.messages[:end]
        parts = [f"{message['role']}\n{_normalize(message['content'])}" for message in asked]
    else:
        parts = [_normalize(sample.prompt)]
    return _digest(parts)


def row_key(sample: Sample) -> bytes:
    """A digest of the whole row as it is; exact duplicates have the same."""
    label = [] if sample.label is None else [sample.label]
    rejected = [{"rejected": sample.rejected}] if sample.rejected else []
    references = [{"references": sample.references}] if sample.references else []
    return _digest([sample.messages, sample.prompt, sample.completion, *label, *rejected, *references])


def choose_split(key: bytes, validation_fraction: float, test_fraction: float) -> str:
    """train, validation or test for a prompt's key.

    The test split lies at the low end: another `validation_fraction` does not change it.
    """
    position = int.from_bytes(hashlib.sha256(b"split:" + key).digest()[:8], "big") / _RANGE
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


def shuffle_key(seed: int, row: bytes) -> bytes:
    """Where a row stands in the shuffled order: rows are sorted by it."""
    return hashlib.sha256(seed.to_bytes(8, "big") + row).digest()[:16]


def _normalize(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _digest(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:16]
