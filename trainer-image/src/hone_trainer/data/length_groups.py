"""Rows of similar length in the same micro-batch: the rows of each optimizer step sorted, the longest first; in
micro-batches of as many rows each, or of at most so many tokens.

Which rows a step has does not change, whatever the micro-batch and the number of processes: their gradients are summed
in another order, and that is all. transformers' own `group_by_length` sorts the rows of 50 batches instead, so that all
rows of a step are long, or all short; and it draws their order from torch's global state, which after a resume in a
later epoch is another one.
"""

import sys
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


def micro_batches(
    rows: Iterable[int], lengths: Sequence[int], most_tokens: int, processes: int = 1
) -> list[list[list[int]]]:
    """The rows of a step in micro-batches of at most so many tokens with padding, as few as possible.

    Processes compute a micro-batch at the same time, and some losses gather figures of its rows: so each of them gets
    as many, with as many rows of about the same length. A row that is longer goes alone.

    Args:
        rows: those of a step, as many for each process.
        lengths: tokens of each row.
        most_tokens: of a micro-batch.
        processes: that share the step.

    Returns:
        of each process the micro-batches, the longest rows first.
    """
    ordered = list(grouped(rows, lengths, sys.maxsize))
    longest = [lengths[row] for row in ordered[::processes]]
    sizes = _sizes(longest, most_tokens)
    # The least tokens that take no more passes: then processes wait less for each other, and for less padding.
    least, enough = 1, most_tokens
    while least < enough:
        middle = (least + enough) // 2
        fits = len(_sizes(longest, middle)) <= len(sizes)
        least, enough = (least, middle) if fits else (middle + 1, enough)
    shares: list[list[list[int]]] = [[] for _ in range(processes)]
    done = 0
    for size in _sizes(longest, enough):
        part = ordered[done * processes : (done + size) * processes]
        done += size
        for process, share in enumerate(shares):
            share.append(part[process::processes])
    return shares


def _sizes(longest: Sequence[int], most_tokens: int) -> list[int]:
    """Rows of each micro-batch of a process, if the longest ones of all processes have these tokens."""
    sizes, width = list[int](), 0
    for tokens in longest:
        if sizes and (sizes[-1] + 1) * width <= most_tokens:
            sizes[-1] += 1
        else:
            sizes.append(1)
            width = tokens
    return sizes


def passes_and_work(
    lengths: Sequence[int], rows_per_step: int, most_tokens: int, processes: int
) -> tuple[float, float]:
    """Forward passes of a step, and tokens that all processes compute for it with padding and waiting, on average.

    Args:
        lengths: tokens of each row, in the order in which steps take them.
        rows_per_step: rows of an optimizer step over all processes, as many for each.
        most_tokens: of a micro-batch.
        processes: that share a step.
    """
    steps = len(lengths) // rows_per_step
    passes, work = 0, 0
    for step in range(steps):
        rows = range(step * rows_per_step, (step + 1) * rows_per_step)
        first = micro_batches(rows, lengths, most_tokens, processes)[0]
        passes += len(first)
        work += sum(len(part) * lengths[part[0]] for part in first) * processes
    return passes / max(1, steps), work / max(1, steps)
