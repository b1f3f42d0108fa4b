"""A tokenized split in its final order, cut to the sequence length."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.data.faults import Faults
from hone_trainer.data.rows import RowEncoder
from hone_trainer.data.splits import shuffle_key
from hone_trainer.data.token_rows import SplitRows, features

if TYPE_CHECKING:
    from datasets import Dataset

Columns = dict[str, list[Any]]


def finish_split(
    raw: Path,
    name: str,
    split: SplitRows,
    limit: int,
    encoder: RowEncoder,
    faults: Faults,
    *,
    cut: bool = True,
    grouped: bool = False,
) -> "Dataset":
    """A split's rows, without those that have no trained token, shuffled if it is train, and cut to `limit` tokens.

    Args:
        raw: the directory of the tokenized rows.
        name: of the split.
        split: its rows.
        limit: most tokens of a row.
        encoder: what cuts them.
        faults: counts the rows that are left out.
        cut: whether rows are cut; if not, long ones stay as they are.
        grouped: whether test rows have groups.
    """
    from datasets import Dataset

    path = raw / f"{name}.arrow"
    if not split.lengths:
        types = features(name, encoder, grouped=grouped)
        return Dataset.from_dict({column: [] for column in types}, features=types)
    order = []
    for i, first in enumerate(split.first_trained):
        if first < limit:
            order.append(i)
        else:
            faults.add(f"nothing to train on within the first {limit} tokens", split.places[i])
    if name == "train":
        copies = [(_copy_key(split.keys[i], copy), i) for i in order for copy in range(split.copies[i])]
        order = [i for _, i in sorted(copies)]
    # Without names of our own, datasets would draw them, and the same rows would not be the same bytes.
    fingerprint = _fingerprint(split)
    dataset = Dataset.from_file(str(path)).select(order, new_fingerprint=fingerprint)
    if cut and any(split.lengths[i] > limit for i in order):
        dataset = dataset.map(
            _cut(encoder, limit),
            cache_file_name=str(raw / f"{name}-cut.arrow"),
            new_fingerprint=f"{fingerprint}-{limit}",
        )
    if encoder.NEIGHBORS and name != "test" and order:
        dataset = dataset.map(
            _neighbors(encoder, dataset),
            with_indices=True,
            batched=True,
            cache_file_name=str(raw / f"{name}-neighbors.arrow"),
            new_fingerprint=f"{fingerprint}-{limit}-neighbors",
        )
    return dataset


def _copy_key(key: bytes, copy: int) -> bytes:
    """Where a copy of a row stands in the shuffled order: not next to the row."""
    return shuffle_key(copy, key) if copy else key


def _fingerprint(split: SplitRows) -> str:
    """A name of a split's rows for datasets, the same for the same rows."""
    return hashlib.sha256(split.lengths.tobytes() + b"".join(split.keys)).hexdigest()[:16]


def _neighbors(encoder: RowEncoder, rows: "Dataset") -> Callable[[Columns, list[int]], Columns]:
    def add(batch: Columns, indices: list[int]) -> Columns:
        previous = rows[indices[0] - 1]
        return {new: [previous[column], *batch[column][:-1]] for new, column in encoder.NEIGHBORS.items()}

    return add


def _cut(encoder: RowEncoder, limit: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def cut(row: dict[str, Any]) -> dict[str, Any]:
        return {**encoder.cut(row, limit), "length": min(row["length"], limit)}

    return cut


def shuffled(rows: "Dataset", seed: int) -> "Dataset":
    """The rows in an order that depends on the seed alone: pieces of one text do not follow each other."""
    return rows.select(sorted(range(len(rows)), key=lambda i: shuffle_key(seed, i.to_bytes(8, "big"))))
