"""Whether several short rows go through the model as one, without padding, and how long such a packed row is.

An optimizer step trains on about as many rows as without packing: a packed row is made as long as a process's share of
a step, or a whole part of it. TRL counts packed rows as rows instead; with thirty short ones in each, that is a batch
thirty times as large, and a thirtieth of the steps. A row that is longer than a packed one stays alone.

Work is counted in multiply-adds of the forward pass, P being the parameters, L the layers, h the hidden size:

    a forward pass of b rows, each padded to T tokens      b · T · (P + 2 · L · h · T)
    the same b rows as one of T tokens, nothing padded     T · (P + 2 · L · h · T)

On GPUs a pass of few tokens takes as long as one of `LEAST_TOKENS`. The second T is longer, and SDPA works out
attention over all of it before it masks: so packing does not always save.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hone.contract.runconfig import RunConfig
from hone_trainer.models.facts import ModelFacts
from hone_trainer.planning import needs
from hone_trainer.planning.batches import (
    MIN_STEPS,
    MOST_TOKENS,
    default_epochs,
    global_batch_size,
    least_tokens,
    micro_batches,
    steps_per_epoch,
)
from hone_trainer.protocol.errors import BadInput

FIELD = "spec.hyperparameters.packing"
MOST_PACKED_TOKENS = 2048
"""Tokens of a packed row above which SDPA's mask over all pairs of them costs too much on a CPU."""
MOST_ATTENTION = 0.3
"""On GPUs: the work of attention over all pairs of tokens, as a share of that of the weights, up to which packed rows
become longer. They do up to `MOST_TOKENS`, from where on a GPU is hardly faster."""
_SMALLER = 0.1
"""How much smaller than requested a step may become so that it is one packed row less."""
MIN_SAVING = 0.10
"""Share of the work that packing has to save."""


@dataclass(frozen=True)
class Packing:
    """How long a packed row is, or that rows stay as they are, and why."""

    why: str
    length: int | None = None
    """Most tokens of a packed row; None: rows are not packed."""
    rows: int = 0
    """Packed training rows, once there are any."""


UNPACKED = Packing("Rows are not packed.")


def propose(config: RunConfig, facts: ModelFacts, lengths: Sequence[int], keeps_apart: Callable[[], bool]) -> Packing:
    """Choose between packing and padding.

    Args:
        config: what the user configured.
        facts: the base model.
        lengths: tokens of each training row, in the order in which they were shuffled.
        keeps_apart: tries out whether rows in one packed row stay unseen by each other in this model.

    Raises:
        BadInput: packing is requested, but the model would see other rows.
    """
    requested = config.hyperparameters.packing
    if requested is False:
        return Packing("Set in the spec.")
    if not needs.packs(config.objective):
        return Packing(f"Rows of {config.objective.value} cannot be packed.")
    size = global_batch_size(config, len(lengths), sum(lengths) / len(lengths))
    share = max(1, size // config.topology.data_parallel_size)
    length = _length(lengths, share, most_tokens(config, facts))
    if not requested:
        objection = _objection(config, facts, lengths, share, length)
        if objection is not None:
            return Packing(objection)
    if not keeps_apart():
        seen = f"In a model of type {facts.model_type}, rows packed together would attend to each other"
        if requested:
            raise BadInput(FIELD, seen, "Remove it.")
        return Packing(f"{seen}.")
    if requested:
        return Packing("Set in the spec.", length)
    saving = _saving(facts, lengths, share, length, least_tokens(config))
    return Packing(f"About {saving:.0%} less compute than padding.", length)


def packed_rows_per_step(share: int, rows: int, packed_rows: int) -> int:
    """Packed rows of one process and optimizer step that hold about `share` rows."""
    return max(1, round(share * packed_rows / rows))


def most_tokens(config: RunConfig, facts: ModelFacts) -> int:
    """Most tokens of a forward pass of packed rows: they are all one row to attention."""
    if not config.topology.gpus_per_node:
        return MOST_PACKED_TOKENS
    lengths = (MOST_TOKENS, MOST_TOKENS // 2)
    pairs = 2 * facts.layers * facts.hidden_size / facts.parameters
    return next((length for length in lengths if pairs * length <= MOST_ATTENTION), MOST_PACKED_TOKENS)


def _length(lengths: Sequence[int], share: int, most: int) -> int:
    """Tokens of a packed row: a process's share of a step, divided evenly where that is too much for one."""
    tokens = share * sum(lengths) / len(lengths)
    parts = max(1, math.ceil(tokens / most - _SMALLER))
    even = 64 * math.ceil(tokens / parts / 64)
    return min(even, most)


def _objection(config: RunConfig, facts: ModelFacts, lengths: Sequence[int], share: int, length: int) -> str | None:
    """Why rows should not be packed, or None."""
    rows = len(lengths)
    long = [tokens for tokens in lengths if tokens > length]
    packed = len(long) + math.ceil((sum(lengths) - sum(long)) / length)
    per_epoch = steps_per_epoch(
        packed, 1, config.topology.data_parallel_size, packed_rows_per_step(share, rows, packed)
    )
    spec = config.hyperparameters
    steps = spec.max_steps or math.ceil((spec.epochs or default_epochs(rows)) * per_epoch)
    if steps < MIN_STEPS:
        return f"Only {steps} optimizer steps, fewer than {MIN_STEPS}."
    saving = _saving(facts, lengths, share, length, least_tokens(config))
    if saving < MIN_SAVING:
        return f"It would save {max(0.0, saving):.0%} of compute, less than {MIN_SAVING:.0%}."
    return None


def _saving(facts: ModelFacts, lengths: Sequence[int], share: int, length: int, least: int) -> float:
    """Share of the work that packing saves; negative where attention costs more than padding does."""

    def work(rows: int, tokens: float) -> float:
        filled = max(rows * tokens, least)
        return filled * facts.parameters + rows * 2 * facts.layers * facts.hidden_size * tokens**2

    longest = max(lengths)
    micro = next((m for m in micro_batches(None, share) if m * longest <= MOST_TOKENS), 1)
    batches = [lengths[i : i + micro] for i in range(0, len(lengths), micro)]
    padded = sum(work(len(batch), max(batch)) for batch in batches)
    long = [tokens for tokens in lengths if tokens > length]
    packed = (sum(lengths) - sum(long)) / length * work(1, length) + sum(work(1, tokens) for tokens in long)
    return 1 - packed / padded
