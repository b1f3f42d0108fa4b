"""Answers that a model writes in training: how many to a prompt, how long, how freely drawn, and how many at once."""

from collections.abc import Callable
from typing import Any

from hone.contract.objectives import OBJECTIVES
from hone.contract.runconfig import RunConfig
from hone_trainer.objectives import MICRO_BATCHES_AT_ONCE
from hone_trainer.protocol.errors import BadInput

LONGEST = 256
"""Tokens of an answer by default: half of the 512 of TRL's trainers."""

Pick = Callable[[str, Any, Any, str], Any]


def generations(config: RunConfig) -> int | None:
    """Answers to each prompt; None where the objective learns from given ones."""
    default = OBJECTIVES[config.objective].generations
    return default and (config.hyperparameters.generations or default)


def written_at_once(config: RunConfig, per_rank: int, micro_batch_size: int) -> int:
    """Most answers that a process writes at once; 0 where the objective learns from given ones.

    Args:
        config: what the user asked for.
        per_rank: answers of a step that the process learns from.
        micro_batch_size: those that it learns from at once.
    """
    return min(per_rank, MICRO_BATCHES_AT_ONCE * micro_batch_size) if generations(config) else 0


def completion_length(config: RunConfig, max_length: int) -> int:
    """Most tokens of an answer.

    Args:
        config: what the user asked for.
        max_length: the model's context in tokens.

    Raises:
        BadInput: what is asked for leaves no room for a prompt.
    """
    asked = config.hyperparameters.max_completion_length
    limit = config.hyperparameters.sequence_length or max_length
    if asked is not None and asked >= limit:
        what = "spec.hyperparameters.sequenceLength" if limit != max_length else "the model's context"
        raise BadInput(
            "spec.hyperparameters.maxCompletionLength",
            f"{asked} tokens leave no room for a prompt in the {limit} of {what}",
            f"Use at most {limit // 2}.",
        )
    return asked or min(LONGEST, limit // 2)


def choose(config: RunConfig, max_length: int, pick: Pick) -> dict[str, Any]:
    """The plan's fields on answers; none where the objective learns from given ones.

    Args:
        config: what the user asked for.
        max_length: the model's context in tokens.
        pick: (field, what was asked for, default, why) -> value; notes the reason.
    """
    asked, count = config.hyperparameters, generations(config)
    if not count:
        return {}
    length = completion_length(config, max_length)
    why = f"At most {LONGEST}, and half of what prompt and answer may have together."
    return {
        "generations": pick("generations", asked.generations, count, f"Default of {config.objective.value}.")
        if count > 1
        else None,
        "max_completion_length": pick("maxCompletionLength", asked.max_completion_length, length, why),
        "temperature": pick("temperature", asked.temperature, 1.0, "Default: as the model itself."),
    }
