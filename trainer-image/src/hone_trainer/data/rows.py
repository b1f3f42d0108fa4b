"""The interface of every encoder, which turns samples into rows of prepared data, and the kinds of columns."""

from collections import Counter
from enum import Enum
from typing import Any, ClassVar, Protocol

from hone_trainer.data.classes import Classes
from hone_trainer.data.sample import Sample


class Column(Enum):
    """What a column of prepared data holds."""

    IDS = "token ids"
    LABELS = "a token id where there is loss, else -100"
    NUMBER = "an integer"
    CLASSES = "indices of classes"
    TEXT = "a string"


class EncodedRow(Protocol):
    """A row as numbers."""

    @property
    def length(self) -> int:
        """Tokens of its longest sequence."""

    @property
    def first_trained(self) -> int:
        """Cut to this many tokens or fewer, the row teaches nothing."""

    def columns(self) -> dict[str, Any]:
        """The row's columns."""


class RowEncoder(Protocol):
    """Turns samples into rows, with one tokenizer."""

    COLUMNS: ClassVar[dict[str, Column]]
    """The columns that `EncodedRow.columns` returns, with their kinds."""
    NEIGHBORS: ClassVar[dict[str, str]]
    """Columns to add once a split is in its final order: each takes the value of the named column from the previous
    row, the first row from the last one. Not in the test split."""

    @property
    def marks(self) -> str:
        """By what the encoder knows which tokens carry loss, for the log."""

    @property
    def train_on(self) -> str:
        """What carries loss, for `status.dataset`."""

    @property
    def classes(self) -> Classes | None:
        """The classes; None if rows have none."""

    notes: Counter[str]
    """Warnings with the number of rows encoded since it was set that they are about."""

    def encode(self, sample: Sample) -> EncodedRow:
        """A sample as numbers. Raises RowFault if that is impossible."""

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The columns of a row, its sequences cut to `limit` tokens."""

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of the request that a server would get."""

    def reference(self, sample: Sample) -> str:
        """The text that an answer is compared with."""

    def decode(self, encoded: Any, limit: int) -> str:
        """A row that `encode` returned, as text of at most `limit` characters, with «» around what carries loss."""

    def learns_to_stop(self, encoded: Any) -> bool:
        """Whether any token that ends a turn carries loss."""

    def warnings(self) -> list[str]:
        """Warnings about the rows encoded so far, as sentences for the user."""
