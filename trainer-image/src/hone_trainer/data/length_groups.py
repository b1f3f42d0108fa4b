"""Rows of similar length in the same micro-batch: the rows of each optimizer step sorted, the longest first.

Which rows a step has does not change, whatever the micro-batch and the number of processes: their gradients are summed
in another order, and that is all. transformers' own `group_by_length` sorts the rows of 50 batches instead, so that all
rows of a step are long, or all short; and it draws their order from torch's global state, which after a resume in a
later epoch is another one.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice


def grouped(order: Iterable[int], lengths: Sequence[int], rows_per_step: int) -> Iterator[int]:
    """The rows of `order`, those of each step sorted.

    Args:
        order: rows in the order in which steps take them.
        lengths: tokens of each row.
        rows_per_step: rows of an optimizer step over all processes.
    """
    rows = iter(order)
    while step := list(islice(rows, rows_per_step)):
        yield from sorted(step, key=lambda row: lengths[row], reverse=True)


def unused_share(lengths: Sequence[int], rows_per_pass: int) -> float:
    """Share of the work that is done on no token: padding, and waiting for processes with longer rows.

    Args:
        lengths: tokens of each row, in the order in which they are trained on.
        rows_per_pass: rows that all processes together take at once: each takes as long as the one with the longest.
    """
    passes = [lengths[start : start + rows_per_pass] for start in range(0, len(lengths), rows_per_pass)]
    return 1 - sum(lengths) / sum(max(rows) * len(rows) for rows in passes)
