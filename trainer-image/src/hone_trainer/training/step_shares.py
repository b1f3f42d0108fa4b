"""A process's share of an optimizer step as one batch, cut into micro-batches of at most so many tokens.

How many rows a micro-batch has, and how many of them a step has, differs from step to step. transformers' Trainer knows
neither: to it, a step is one batch, which `TrainerMixin` trains on a micro-batch at a time. All processes draw the same
rows and cut them in the same way, so each computes as many micro-batches of as many rows as the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

from datasets import Dataset as Rows
from torch.utils.data import Dataset, Sampler

from hone_trainer.data.length_groups import micro_batches

MICRO_BATCHES = "micro_batches"
_WEIGHTS = "weights"


class Share(NamedTuple):
    """What a process trains on in a step.

    Attributes:
        parts: indices of the rows of each micro-batch, or the rows themselves.
        rows: how many they are.
    """

    parts: list[Any]
    rows: int


class ShareSampler(Sampler[Share]):
    """The shares of each step, those of one step in the order of the processes.

    Args:
        drawn: accelerate's, which draws the rows of an epoch by seed and epoch.
        lengths: tokens of each row.
        rows_per_step: rows of an optimizer step over all processes.
        most_tokens: of a micro-batch, with padding.
        processes: of the run.
    """

    def __init__(
        self, drawn: Any, lengths: Sequence[int], rows_per_step: int, most_tokens: int, processes: int
    ) -> None:
        self._drawn, self._lengths, self._rows_per_step = drawn, lengths, rows_per_step
        self._most_tokens, self._processes = most_tokens, processes

    def __iter__(self) -> Iterator[Share]:
        rows, first = iter(self._drawn), list[int]()
        while step := list(islice(rows, self._rows_per_step)):
            first = first or list(step)
            # The last step of an epoch is filled up with its first rows, as accelerate does.
            step += islice(cycle(first), -len(step) % self._processes)
            for parts in micro_batches(step, self._lengths, self._most_tokens, self._processes):
                yield Share(parts, len(step) // self._processes)

    def __len__(self) -> int:
        return -(-len(self._drawn) // self._rows_per_step) * self._processes

    def set_epoch(self, epoch: int) -> None:
        """Draw the rows of this epoch next."""
        self._drawn.set_epoch(epoch)


class ShareDataset(Dataset[Any]):
    """Rows that are read by the share. It counts rows, of which accelerate's sampler draws.

    Args:
        rows: the training rows.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, shares: list[Share]) -> list[Share]:
        """The rows of shares by their indices."""
        return [Share([self.rows.__getitems__(part) for part in share.parts], share.rows) for share in shares]


class ShareCollator:
    """Makes a batch of each micro-batch of a share.

    Args:
        collate: makes it of rows.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, shares: list[Share]) -> dict[str, Any]:
        """The micro-batches of the only share, and of each by how much its loss, a mean over its rows, counts."""
        (share,) = shares
        return {
            MICRO_BATCHES: [self._collate(part) for part in share.parts],
            _WEIGHTS: [len(part) / share.rows for part in share.parts],
        }


def weighted(share: Mapping[str, Any]) -> list[tuple[dict[str, Any], float]]:
    """The micro-batches of a share, each with the weight of its loss."""
    return list(zip(share[MICRO_BATCHES], share[_WEIGHTS], strict=True))


def by_share(loader: Any, lengths: Sequence[int], rows_per_step: int, most_tokens: int, processes: int) -> None:
    """Have a data loader of accelerate, which reads a `ShareDataset` one by one, take shares; arguments as of
    `ShareSampler`."""
    loader.set_sampler(ShareSampler(loader.get_sampler(), lengths, rows_per_step, most_tokens, processes))
    # Not of the outer one, which reads it there, as a loader does that skips what was trained before a resume.
    loader.base_dataloader.collate_fn = ShareCollator(loader.collate_fn)
