"""What makes a sample into a row of prepared data: the interface of every encoder, and the kinds of columns."""

from enum import Enum
from typing import Any, ClassVar, Protocol

from hone_trainer.data.classes import Classes
from hone_trainer.data.formats import Sample


class Column(Enum):
    """What a column of prepared data holds."""

    IDS = "token ids"
    LABELS = "a token id where there is loss, else -100"
    NUMBER = "an integer"
    TEXT = "a string"


class EncodedRow(Protocol):
    """A row as numbers."""

    @property
    def length(self) -> int:
        """Tokens of its longest sequence."""

    @property
    def first_trained(self) -> int:
        """The row is of no use when its sequences are cut to this many tokens."""

    def columns(self) -> dict[str, Any]:
        """The row's columns."""


class RowEncoder(Protocol):
    """Turns samples into rows, with one tokenizer."""

    COLUMNS: ClassVar[dict[str, Column]]
    """What `EncodedRow.columns` gives."""
    NEIGHBORS: ClassVar[dict[str, str]]
    """Columns to add once the rows of a split are in their order, each with the column whose value it takes from the
    row before; the first row takes the last one's. Not in the test split."""
    marks: str
    """How it found out what carries loss, for the log."""
    train_on: str
    """What carries loss, for `status.dataset`."""
    classes: Classes | None
    """The classes, where rows have them."""

    def encode(self, sample: Sample) -> EncodedRow:
        """A sample as numbers. Raises RowFault where it cannot be one."""

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The columns of a row, its sequences cut to `limit` tokens."""

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what a server would be asked."""

    def reference(self, sample: Sample) -> str:
        """What the answer is compared to."""

    def decode(self, encoded: Any, limit: int) -> str:
        """The row as text of at most `limit` characters, with «» around what carries loss."""

    def learns_to_stop(self, encoded: Any) -> bool:
        """Whether any token that ends a turn carries loss."""

    def warnings(self) -> list[str]:
        """What was noticed in the rows encoded so far, in sentences for people."""
