"""How rows are divided: the global batch, the micro-batches that it may be made of, and the steps of an epoch."""

import math

from hone.contract.objectives import OBJECTIVES
from hone.contract.runconfig import RunConfig
from hone_trainer.planning.rollouts import generations
from hone_trainer.protocol.errors import BadInput

SMALL_DATA_ROWS = 10_000
MOST_TOKENS = 8192
"""Tokens of a micro-batch above which a larger one is hardly faster."""


def global_batch_size(config: RunConfig) -> int:
    """Rows per optimizer step over all processes, or answers where the model writes them: those asked for, else the
    number nearest to the default that leaves each process as many as the objective needs at once, and has all answers
    to its prompts.

    Raises:
        BadInput: what is asked for cannot be divided among the processes, or cuts through the answers to a prompt.
    """
    asked, world = config.hyperparameters.global_batch_size, config.topology.world_size
    facts, group = OBJECTIVES[config.objective], generations(config)
    unit = math.lcm(world, group or 1)
    if asked is not None and asked % unit:
        below, above = asked // unit * unit, (asked // unit + 1) * unit
        why = f"{asked} rows cannot be divided among {world} processes"
        if group:
            why = f"{asked} answers are not {group} to each prompt, shared evenly by {world} processes"
        raise BadInput(
            "spec.hyperparameters.globalBatchSize",
            why,
            f"Use {f'{below} or ' if below else ''}{above}.",
        )
    return asked or max(round(facts.global_batch_size / unit) * unit, facts.least_micro_batch * world, unit)


def default_epochs(rows: int) -> float:
    """Passes over so many training rows."""
    return 3.0 if rows < SMALL_DATA_ROWS else 1.0


def micro_batches(asked: int | None, per_rank: int, least: int = 1) -> list[int]:
    """Micro-batches to try, largest first: the divisors of a rank's share, so that the global batch is exact.

    Args:
        asked: the one that the spec asks for.
        per_rank: a rank's share of the global batch, in rows.
        least: rows that a micro-batch has at least.

    Raises:
        BadInput: the one that is asked for is none of them, or the share is too small.
    """
    if per_rank < least:
        raise BadInput(
            "spec.hyperparameters.globalBatchSize",
            f"leaves each process {per_rank} row of a step, and at least {least} must go through the model at once",
            f"Use at least {least} for each process.",
        )
    divisors = [m for m in range(per_rank, least - 1, -1) if per_rank % m == 0]
    if asked is None:
        return divisors
    if asked < least:
        raise BadInput(
            "spec.compute.microBatchSize",
            f"{asked} row at a time is too few: this objective needs {least} to go through the model together",
            f"Use at least {least}, or leave it out.",
        )
    if asked not in divisors:
        raise BadInput(
            "spec.compute.microBatchSize",
            f"{asked} does not divide the {per_rank} rows that each process has of the global batch",
            f"Use one of {', '.join(map(str, reversed(divisors[-12:])))}, or change globalBatchSize.",
        )
    return [asked]


def steps_per_pass(prompts: int, per_step: int) -> int:
    """Optimizer steps of one pass over the prompts, as TRL's RepeatSampler counts them: what fills no step is left out.

    Raises:
        BadInput: there are too few for a single step.
    """
    if prompts < per_step:
        raise BadInput(
            "spec.hyperparameters.globalBatchSize",
            f"a step takes the answers to {per_step} prompts, and there are {prompts} to train on",
            "Use a smaller one, or give more rows.",
        )
    return prompts // per_step


def steps_per_epoch(rows: int, micro_batch_size: int, world_size: int, accumulation: int) -> int:
    """Optimizer steps of one epoch as transformers' Trainer counts them, the last batch being a short one."""
    batches = math.ceil(rows / micro_batch_size)
    per_rank = math.ceil(batches / world_size)
    return max(math.ceil(per_rank / accumulation), 1)
