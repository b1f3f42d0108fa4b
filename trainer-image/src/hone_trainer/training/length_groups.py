"""A sampler that gives rows of similar length to the same micro-batch, as `hone_trainer.data.length_groups` says."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler

from hone_trainer.data.length_groups import grouped


class GroupedSampler(Sampler[int]):
    """The rows of another sampler, those of each optimizer step sorted by length.

    Args:
        drawn: accelerate's, which draws the rows of an epoch by seed and epoch.
        lengths: tokens of each row.
        rows_per_step: rows of an optimizer step over all processes.
    """

    def __init__(self, drawn: Any, lengths: Sequence[int], rows_per_step: int) -> None:
        self._drawn, self._lengths, self._rows_per_step = drawn, lengths, rows_per_step

    def __iter__(self) -> Iterator[int]:
        return grouped(iter(self._drawn), self._lengths, self._rows_per_step)

    def __len__(self) -> int:
        return len(self._drawn)

    def set_epoch(self, epoch: int) -> None:
        """Draw the rows of this epoch next."""
        self._drawn.set_epoch(epoch)


def group_by_length(loader: Any, lengths: Sequence[int], rows_per_step: int) -> None:
    """Have a data loader of accelerate take the rows of each step by length.

    `set_sampler` also leaves the sampler where a loader that skips what was trained before a resume looks for it, to
    tell it the epoch: a sampler of the Trainer's own would begin with the order of the first one again.
    """
    loader.set_sampler(GroupedSampler(loader.get_sampler(), lengths, rows_per_step))
