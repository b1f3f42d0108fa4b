"""Which split each row goes to, once all rows are known: held out so that the test is fair."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from hone.contract.settings import SplitBy
from hone_trainer.data.label_values import Label, names_of
from hone_trainer.data.sample import Sample
from hone_trainer.data.splits import choose_split, first_turn_key, normalized, prompt_key, row_key

_MAJORITY = 0.5
"""The share of the rows with one prompt above which prompts cannot part them."""
_COPIES = 0.01
"""The share of the training rows that must be copies of others to be warned of."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is stored of a good row between the passes: some digests and its class, never its text.

    Attributes:
        source: train, validation or test: where it was read.
        row: of all that it holds.
        prompt: of what comes before the answer.
        label: its class or classes; None where there are no classes.
        group: of what decides its split where that is not the prompt.
        whole: of a conversation to the end of its last answer.
        parts: of the same conversation to the end of each earlier answer.
        text: of all but the class.
        subgroup: the group that it is scored with, as text.
    """

    source: str
    row: bytes
    prompt: bytes
    label: Label | None = None
    group: bytes | None = None
    whole: bytes | None = None
    parts: tuple[bytes, ...] = ()
    text: bytes | None = None
    subgroup: str = ""


@dataclass(frozen=True, slots=True)
class RowRef:
    """What is stored of a good row between the passes: a few bytes and its class, never its text."""

    split: str | None
    """train, validation or test; None if another split has the same row, or it is not used."""
    row: bytes
    prompt: bytes
    label: Label | None = None
    copies: int = 1
    """How often it is learned in one epoch."""
    used: bool = True
    """Whether it is one of the rows that its source may contribute."""


@dataclass(frozen=True)
class Assigned:
    """The split of each row, and sentences about what had to be done for a fair test."""

    splits: list[str]
    warnings: list[str]


def seen(sample: Sample, source: str, split_by: SplitBy | None, group: object, *, generated: bool) -> Seen:
    """What is stored of a row.

    Args:
        sample: the row.
        source: where it was read.
        split_by: what rows are held out by; None: by what fits.
        group: the value of the row's column `group`.
        generated: as for `prompt_key`.
    """
    prompt = prompt_key(sample, generated=generated)
    row = row_key(sample)
    key = None
    if split_by is SplitBy.ROW:
        key = row
    elif split_by is SplitBy.FIRST_TURN:
        key = first_turn_key(sample)
    elif split_by is SplitBy.COLUMN:
        key = hashlib.sha256(f"group:{normalized(str(group))}".encode()).digest()[:16]
    text = row_key(sample, label=False) if sample.label is not None else None
    *parts, whole = _answers(sample) if split_by in (None, SplitBy.PROMPT) else (None,)
    return Seen(source, row, prompt, sample.label, key, whole, tuple(part for part in parts if part), text)


def _answers(sample: Sample) -> list[bytes | None]:
    """Digests of a conversation, each up to the end of an answer."""
    if not sample.is_chat or sample.rejected:
        return [None]
    digest, result = hashlib.sha256(), list[bytes | None]()
    for message in sample.messages:
        content = normalized(message["content"])
        digest.update(f"{message['role']} {len(content)}\n{content}".encode())
        if message["role"] == "assistant":
            result.append(digest.digest()[:16])
    return result or [None]


def assign(rows: list[Seen], validation_fraction: float, test_fraction: float, split_by: SplitBy | None) -> Assigned:
    """The split of each row.

    Rows of a source of their own stay there. Of the training rows, those with the same prompt go to the same split, and
    so do the conversations that continue another row's. A class is never held out as a whole.

    Args:
        rows: all rows, in reading order.
        validation_fraction: share of the training source held out for validation.
        test_fraction: share held out for the test split.
        split_by: what rows are held out by; None: by the prompt, or by the whole row if most have one prompt.
    """
    warnings: list[str] = []
    if not validation_fraction + test_fraction:
        return Assigned([row.source for row in rows], warnings)
    keys = _keys(rows, split_by, warnings)
    splits = [
        choose_split(key, validation_fraction, test_fraction) if row.source == "train" else row.source
        for row, key in zip(rows, keys, strict=True)
    ]
    return Assigned(_with_every_class(rows, keys, splits, warnings), warnings)


def _keys(rows: list[Seen], split_by: SplitBy | None, warnings: list[str]) -> list[bytes]:
    """What decides each row's split."""
    own = [row for row in rows if row.source == "train"]
    if split_by is None and len(own) > 1:
        ((_, most),) = Counter(row.prompt for row in own).most_common(1)
        if most > _MAJORITY * len(own) and len({row.row for row in own}) > 1:
            warnings.append(
                f"{most} of {len(own)} rows have the same prompt, so rows are held out by their whole content, and a "
                "tested prompt is trained on. Set spec.dataset.splitBy, or give test rows of their own."
            )
            return [row.row for row in rows]
    roots = {row.whole: row.prompt for row in reversed(own) if row.whole}
    keys, continued = [], 0
    for row in rows:
        root = next((roots[part] for part in row.parts if part in roots), None)
        continued += root is not None
        keys.append(row.group or root or row.prompt)
    if continued:
        warnings.append(
            f"{continued} rows continue the conversation of another row. They are in the split of that row."
        )
    return keys


def _with_every_class(rows: list[Seen], keys: list[bytes], splits: list[str], warnings: list[str]) -> list[str]:
    """The splits with the rows of each class that has no training row moved to training."""
    pairs = list(zip(rows, splits, strict=True))
    trained = {name for row, split in pairs if split == "train" for name in names_of(row.label)}
    rare = {name for row, _ in pairs if row.source == "train" for name in names_of(row.label)} - trained
    moved = {
        key
        for row, key in zip(rows, keys, strict=True)
        if row.source == "train" and not rare.isdisjoint(names_of(row.label))
    }
    if not rare or not moved:
        return splits
    count = sum(row.source == "train" and key in moved for row, key in zip(rows, keys, strict=True))
    warnings.append(
        f"{len(rare)} classes have so few rows that none was left for training: their {count} rows are trained on, and "
        "these classes are not in the test."
    )
    return [
        "train" if row.source == "train" and key in moved else split
        for row, key, split in zip(rows, keys, splits, strict=True)
    ]


def repeated(rows: Iterable[tuple[Seen, str | None]]) -> list[str]:
    """Sentences about rows that stand there several times, or with several classes.

    Args:
        rows: each with its split; None if it is in none.
    """
    rows = [(row, split) for row, split in rows if split]
    sentences = []
    training = [row.row for row, split in rows if split == "train"]
    copies = len(training) - len({*training})
    if copies > _COPIES * len(training):
        sentences.append(
            f"{copies} of {len(training)} training rows are copies of another: each is learned every time."
        )
    labels: dict[bytes, set[str]] = {}
    for row, _ in rows:
        if row.text is not None:
            labels.setdefault(row.text, set()).add(str(row.label))
    twice = {text for text, names in labels.items() if len(names) > 1}
    if twice:
        count = sum(row.text in twice for row, _ in rows)
        sentences.append(f"{count} rows contradict each other: {len(twice)} texts have more than one label.")
    return sentences
