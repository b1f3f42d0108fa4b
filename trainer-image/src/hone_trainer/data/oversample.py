"""`dataset.balance: Oversample`: training rows of rare classes or groups are learned several times in each epoch.

Where the largest class has n rows, a row of a class with n_c is used n / n_c times, at most `MAX_COPIES`: each row as
often as the whole part of that says, and some rows once more, chosen by a hash.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hone_trainer.data.assign import RowRef, Seen
from hone_trainer.data.splits import position
from hone_trainer.protocol.errors import BadInput

MAX_COPIES = 10
"""How often a row is used at most: a class of few rows would be learned by heart."""
FIELD = "spec.dataset.balance"


def oversampled(rows: Sequence[Seen], refs: Sequence[RowRef]) -> tuple[list[RowRef], list[str]]:
    """The rows with how often each is used, and a sentence about it.

    Args:
        rows: all rows.
        refs: the same with their splits.

    Raises:
        BadInput: rows may have several classes, or all training rows are of one class or group.
    """
    if any(isinstance(row.label, tuple) for row in rows):
        raise BadInput(
            FIELD,
            "cannot be Oversample where a text may have several classes: its rows are rare and frequent at once",
            "Set it to Weight.",
        )
    keys = [str(row.label) if row.label is not None else row.subgroup for row in rows]
    trained = [ref.split == "train" for ref in refs]
    counts = Counter(key for key, is_trained in zip(keys, trained, strict=True) if is_trained)
    if len(counts) < 2:
        raise BadInput(
            FIELD, "is Oversample, but all training rows are of one class or group", "Remove it, or check the column."
        )
    most = max(counts.values())
    factors = {key: min(MAX_COPIES, most / count) for key, count in counts.items()}
    result = [
        replace(ref, copies=_copies(ref.row, factors[key])) if is_trained else ref
        for ref, key, is_trained in zip(refs, keys, trained, strict=True)
    ]
    before, after = sum(counts.values()), sum(ref.copies for ref in result if ref.split == "train")
    repeated = sum(factor > 1 for factor in factors.values())
    return result, [
        f"Oversampled: the training rows of {repeated} of {len(counts)} classes or groups are repeated, up to "
        f"{max(factors.values()):.3g} times; {before} rows are learned as {after} in each epoch."
    ]


def _copies(row: bytes, factor: float) -> int:
    whole = int(factor)
    return whole + (position(b"oversample:" + row) < factor - whole)
