"""Tokenized rows: what decides how rows become tokens, what is stored of each, and the columns of a split."""

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hone_trainer.data.groups import EVALUATION_GROUP
from hone_trainer.data.rows import Column, EncodedRow, RowEncoder
from hone_trainer.data.token_checks import TokenChecks

if TYPE_CHECKING:
    from datasets import Features

_TEST_COLUMNS = {"prompt_ids": Column.IDS, "reference": Column.TEXT, "prompt": Column.TEXT}


@dataclass(frozen=True)
class Options:
    """What decides how rows become tokens, in addition to the rows and the tokenizer."""

    seed: int
    sequence_length: int | None
    """Cut to this many tokens; None: to the longest training row, at most `max_length`."""
    max_length: int
    """Longest context of the model in tokens."""
    max_bad_rows: float = 1.0
    """Largest share of bad rows."""
    template_field: str = "spec.model"
    """The spec's field that names the chat template."""
    default_piece: int | None = None
    """Rows are divided into pieces of `sequence_length` tokens instead of cut; without one, of this many. None: cut."""
    checks: TokenChecks = field(default_factory=TokenChecks, compare=False)
    """What is checked of every row's token ids."""


@dataclass
class SplitRows:
    """What is held in memory of each row of a split, in the order of its file: about 40 bytes a row."""

    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    first_trained: "array[int]" = field(default_factory=lambda: array("q"))
    keys: list[bytes] = field(default_factory=list)
    """Shuffle keys."""
    places: list[str] = field(default_factory=list)
    copies: "array[int]" = field(default_factory=lambda: array("q"))
    """How often each row is learned in one epoch."""

    def add(self, row: EncodedRow, key: bytes, place: str, copies: int = 1) -> None:
        """Record a row that was written."""
        self.copies.append(copies)
        self.lengths.append(row.length)
        self.first_trained.append(row.first_trained)
        self.keys.append(key)
        self.places.append(place)

    def extend(self, rows: "SplitRows") -> None:
        """Record the rows that follow."""
        self.copies += rows.copies
        self.lengths += rows.lengths
        self.first_trained += rows.first_trained
        self.keys += rows.keys
        self.places += rows.places


@dataclass
class Tokenized:
    """All splits once their rows are written.

    Attributes:
        splits: the rows of each split, by name.
        learns_to_stop: whether in any training row a token that ends a turn carries loss.
        example: the first training row as text; None without rows.
        outline: the parts of that row with their lengths.
    """

    splits: dict[str, SplitRows]
    learns_to_stop: bool = False
    example: str | None = None
    outline: str | None = None

    def add(self, rows: "Tokenized") -> None:
        """Add the rows that follow."""
        for name, split in self.splits.items():
            split.extend(rows.splits[name])
        self.learns_to_stop = self.learns_to_stop or rows.learns_to_stop
        if self.outline is None:
            self.example, self.outline = rows.example, rows.outline


def features(name: str, encoder: RowEncoder, *, grouped: bool) -> "Features":
    """The columns of a split and their types; `grouped`: whether test rows have groups."""
    from datasets import Features, List, Value

    tokens, number = List(Value("int32")), Value("int32")
    types = {
        **dict.fromkeys((Column.IDS, Column.LABELS, Column.CLASSES), tokens),
        Column.NUMBER: number,
        Column.TEXT: Value("string"),
    }
    group = {EVALUATION_GROUP: Column.TEXT} if grouped else {}
    columns = {**encoder.COLUMNS, "length": Column.NUMBER, **({**_TEST_COLUMNS, **group} if name == "test" else {})}
    return Features({column: types[kind] for column, kind in columns.items()})
