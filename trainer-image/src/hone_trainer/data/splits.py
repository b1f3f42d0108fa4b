"""Which split a row belongs to, by a hash of its prompt: a row stays in its split when other rows change."""

import hashlib
import json
import unicodedata
from dataclasses import replace

from hone_trainer.data.sample import Sample

_RANGE = 2**64


def prompt_key(sample: Sample, *, generated: bool = False) -> bytes:
    """A digest of what comes before the answer, without regard to case, spacing or Unicode's variants.

    Rows with the same prompt get the same key and thus the same split, so that no tested prompt is trained on.

    Args:
        sample: the row.
        generated: whether the model generates the answers: the key then covers the messages before the completion.
            Otherwise it covers all before the last assistant turn, or before a rated answer.
    """
    if sample.is_chat:
        end = sample.completion_start if generated else sample.answer_start
        parts = [f"{message['role']}\n{normalized(message['content'])}" for message in sample.messages[:end]]
    else:
        parts = [normalized(sample.prompt)]
    return _digest(parts)


def first_turn_key(sample: Sample) -> bytes:
    """A digest of a conversation up to the user's first message; of plain text, its prompt's."""
    if not sample.is_chat:
        return prompt_key(sample)
    end = next((i + 1 for i, message in enumerate(sample.messages) if message["role"] == "user"), 1)
    return _digest([f"{message['role']}\n{normalized(message['content'])}" for message in sample.messages[:end]])


def row_key(sample: Sample, *, label: bool = True) -> bytes:
    """A digest of the whole row as it is; exact duplicates have the same.

    Args:
        sample: the row.
        label: whether its class counts.
    """
    return _digest((sample if label else replace(sample, label=None)).parts())


def choose_split(key: bytes, validation_fraction: float, test_fraction: float) -> str:
    """train, validation or test for a prompt's key.

    The test split lies at the low end: another `validation_fraction` does not change it.
    """
    place = position(b"split:" + key)
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def position(key: bytes) -> float:
    """A number from 0 up to 1 that follows from a key alone: which rows are chosen where only a share is."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / _RANGE


def shuffle_key(seed: int, row: bytes) -> bytes:
    """Where a row stands in the shuffled order: rows are sorted by it."""
    return hashlib.sha256(seed.to_bytes(8, "big") + row).digest()[:16]


def normalized(text: str) -> str:
    """A text without regard to case, spacing or Unicode's variants."""
    # ASCII has one form only, and needs no table.
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(plain.split())


def _digest(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:16]
