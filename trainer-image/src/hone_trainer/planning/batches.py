"""How rows are divided: the global batch, the micro-batches that it may be made of, and the steps of an epoch."""

import math

from hone.contract.runconfig import RunConfig
from hone_trainer.planning import needs
from hone_trainer.planning.rollouts import generations
from hone_trainer.protocol.errors import BadInput

SMALL_DATA_ROWS = 10_000
MOST_TOKENS = 8192
"""Tokens of a micro-batch above which a larger one is hardly faster."""
_MORE_STEPS = 1.1
"""Packed rows are a little longer than planned, and the last step of an epoch may be short."""
LEAST_TOKENS = 2048
"""Tokens of a micro-batch below which a GPU takes as long for fewer: it reads all weights in any case."""
FORWARD_TOKENS = MOST_TOKENS
"""Tokens that a GPU's share of a step has in forward passes, up to which the default batch grows: below, the GPU waits
for itself."""
MIN_STEPS = 100
"""Optimizer steps that a larger default batch, and packing, leave at least."""


def global_batch_size(config: RunConfig, rows: int = 0, tokens: float = 0.0) -> int:
    """Rows per optimizer step over all processes, or answers where the model generates them: those requested, else the
    number nearest to the default that leaves each process as many as the objective needs at once, and has all answers
    to its prompts. On GPUs more, where rows are short.

    Args:
        config: what the user configured.
        rows: training rows; 0: unknown.
        tokens: of a row on average in a forward pass; 0: unknown.

    Raises:
        BadInput: what is requested cannot be divided among the processes, or cuts through the answers to a prompt.
    """
    requested, processes = config.hyperparameters.global_batch_size, config.topology.data_parallel_size
    default, least = needs.defaults(config.objective).global_batch_size, needs.least_micro_batch(config.objective)
    group = generations(config)
    unit = math.lcm(processes, group or 1)
    if requested is not None and requested % unit:
        below, above = requested // unit * unit, (requested // unit + 1) * unit
        why = f"{requested} rows cannot be divided among {processes} processes"
        if group:
            why = f"{requested} is not a multiple of both {group} answers to each prompt and {processes} processes"
        raise BadInput(
            "spec.hyperparameters.globalBatchSize",
            why,
            f"Use {f'{below} or ' if below else ''}{above}.",
        )
    usual = max(round(default / unit) * unit, least * processes, unit)
    share = _divisible(_filling(config, rows, tokens) // unit * unit // processes)
    return requested or max(usual, share * processes // unit * unit)


def _divisible(share: int) -> int:
    """A share of about so many rows that micro-batches divide: of 89 they could be 1 or 89 alone."""
    return share - share % (8 if share >= 16 else 2) if share > 1 else share


def _filling(config: RunConfig, rows: int, tokens: float) -> int:
    """Rows, or answers, of a step that give each GPU `FORWARD_TOKENS`, or fewer: at most what the objective's record
    allows, and so many that `MIN_STEPS` steps are left."""
    spec, defaults = config.hyperparameters, needs.defaults(config.objective)
    if not (config.topology.gpus_per_node and rows and tokens):
        return 0
    filled = FORWARD_TOKENS / tokens * config.topology.data_parallel_size
    filled = min(filled, defaults.largest_batch_size or filled)
    if spec.max_steps is not None:
        return int(filled)
    learned = rows * (generations(config) or 1) * (spec.epochs or defaults.epochs or default_epochs(rows))
    return int(min(filled, learned / (_MORE_STEPS * MIN_STEPS)))


def least_tokens(config: RunConfig) -> int:
    """Tokens of a micro-batch below which fewer save no time: `LEAST_TOKENS` on GPUs, none on CPUs."""
    return LEAST_TOKENS if config.topology.gpus_per_node else 0


def default_epochs(rows: int) -> float:
    """Passes over so many training rows."""
    return 3.0 if rows < SMALL_DATA_ROWS else 1.0


def why_by_rows(rows: int) -> tuple[bool, str]:
    """Whether so many training rows count as few, and the reason of what follows from it."""
    small = rows < SMALL_DATA_ROWS
    return small, f"{rows} rows, {'fewer than' if small else 'at least'} {SMALL_DATA_ROWS}."


def micro_batches(requested: int | None, per_rank: int, least: int = 1) -> list[int]:
    """Micro-batches to try, largest first: the divisors of a rank's share, so that the global batch is exact.

    Args:
        requested: the one that the spec requests.
        per_rank: a rank's share of the global batch, in rows.
        least: rows that a micro-batch has at least.

    Raises:
        BadInput: the requested one is none of them, or the share is too small.
    """
    if per_rank < least:
        raise BadInput(
            "spec.hyperparameters.globalBatchSize",
            f"gives each process {per_rank} row per step, but this objective needs {least} rows in each forward pass",
            f"Use at least {least} per process.",
        )
    divisors = [m for m in range(per_rank, least - 1, -1) if per_rank % m == 0]
    if requested is None:
        return divisors
    if requested < least:
        raise BadInput(
            "spec.compute.microBatchSize",
            f"{requested} is too small: this objective needs {least} rows in each forward pass",
            f"Use at least {least}, or remove it.",
        )
    if requested not in divisors:
        raise BadInput(
            "spec.compute.microBatchSize",
            f"{requested} does not divide the {per_rank} rows of the global batch that each process gets",
            f"Use one of {', '.join(map(str, reversed(divisors[-12:])))}, or change globalBatchSize.",
        )
    return [requested]


def steps_per_pass(prompts: int, per_step: int) -> int:
    """Optimizer steps of one pass over the prompts, as TRL's RepeatSampler counts them: what fills no step is left out.

    Raises:
        BadInput: there are too few for a single step.
    """
    if prompts < per_step:
        raise BadInput(
            "spec.hyperparameters.globalBatchSize",
            f"a step needs {per_step} prompts, but there are only {prompts} training rows",
            "Lower it, or add rows.",
        )
    return prompts // per_step


def steps_per_epoch(rows: int, micro_batch_size: int, processes: int, accumulation: int) -> int:
    """Optimizer steps of one epoch as transformers' Trainer counts them, the last batch being a short one."""
    batches = math.ceil(rows / micro_batch_size)
    per_rank = math.ceil(batches / processes)
    return max(math.ceil(per_rank / accumulation), 1)
