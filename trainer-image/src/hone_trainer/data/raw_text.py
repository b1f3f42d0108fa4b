"""Raw text for continued pretraining: every token is learned, and long texts are divided instead of cut."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.encode import Encoded
from hone_trainer.data.rows import Column
from hone_trainer.data.sample import Sample
from hone_trainer.data.text import decoded, opening_ids
from hone_trainer.protocol.errors import RowFault, clip

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

DEFAULT_PIECE = 2048
"""Tokens of a piece where spec.hyperparameters.sequenceLength is not set and the model's context allows it."""
_SHORTEST = 2
"""Tokens that a piece must have: nothing comes before the first one, so it is not predicted."""

Rows = dict[str, list[Any]]


class TextEncoder:
    """Turns texts into ids, all of which carry loss, with the token that ends a text.

    Args:
        tokenizer: the model's.
    """

    COLUMNS: ClassVar[dict[str, Column]] = {"input_ids": Column.IDS, "labels": Column.LABELS}
    NEIGHBORS: ClassVar[dict[str, str]] = {}
    marks = "text"
    train_on = "All"
    classes = None

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self.notes = Counter[str]()

    def encode(self, sample: Sample) -> Encoded:
        """Ids of a text.

        Raises:
            RowFault: there is nothing to predict.
        """
        ids, end = opening_ids(self._tokenizer, sample.prompt), self._tokenizer.eos_token_id
        if end is not None and ids[-1:] != [end]:
            ids = [*ids, end]
        if len(ids) < _SHORTEST:
            raise RowFault("`text` has one token, after which nothing is to be predicted")
        return Encoded(ids, list(ids))

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The first `limit` tokens of a text, with their labels."""
        return {column: row[column][:limit] for column in self.COLUMNS}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Nothing: no answer is generated."""
        return [], ""

    def reference(self, sample: Sample) -> str:
        """Nothing, as above."""
        return ""

    def decode(self, encoded: Encoded, limit: int) -> str:
        """The text of at most `limit` characters, within «»."""
        return f"«{clip(decoded(self._tokenizer, encoded.input_ids), limit - 2)}»"

    def learns_to_stop(self, encoded: Encoded) -> bool:
        """Whether the text ends with the token that ends one."""
        return encoded.input_ids[-1:] == [self._tokenizer.eos_token_id]

    def warnings(self) -> list[str]:
        """None."""
        return []


def divide(rows: "Dataset", limit: int, cache_file: str) -> "Dataset":
    """The texts in pieces of `limit` tokens, in their order, without pieces that are too short to learn from.

    Args:
        rows: with ids, labels and length.
        limit: tokens of a piece.
        cache_file: where the pieces are written.
    """
    return rows.map(_pieces(limit), batched=True, batch_size=100, cache_file_name=cache_file)


def _pieces(limit: int) -> Callable[[Rows], Rows]:
    def pieces(batch: Rows) -> Rows:
        divided: Rows = {column: [] for column in batch}
        for i, length in enumerate(batch["length"]):
            for start in range(0, length, limit):
                end = min(start + limit, length)
                if end - start < _SHORTEST:
                    continue
                for column, values in batch.items():
                    whole = values[i]
                    divided[column].append(whole[start:end] if column in TextEncoder.COLUMNS else whole)
                divided["length"][-1] = end - start
        return divided

    return pieces
