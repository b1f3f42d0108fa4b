"""Answers that a model generates in training: how many to a prompt, how long, and how many at once."""

from hone.contract.runconfig import RunConfig
from hone_trainer.planning import needs
from hone_trainer.protocol.errors import BadInput

LONGEST = 256
"""Tokens of an answer by default: half of the 512 of TRL's trainers."""


def generations(config: RunConfig) -> int | None:
    """Answers to each prompt; None where the objective learns from those in the rows."""
    default = needs.generations(config.objective)
    return default and (config.hyperparameters.generations or default)


def generated_at_once(config: RunConfig, per_process: int, micro_batch_size: int) -> int:
    """Most answers that a process generates at once; 0 where the objective learns from those in the rows.

    Args:
        config: what the user configured.
        per_process: answers of a step that the process learns from.
        micro_batch_size: those that it learns from at once.
    """
    return min(per_process, needs.most_generated_at_once(micro_batch_size)) if generations(config) else 0


def completion_length(config: RunConfig, max_length: int) -> int:
    """Most tokens of an answer.

    Args:
        config: what the user configured.
        max_length: the model's context in tokens.

    Raises:
        BadInput: what is requested leaves no room for a prompt.
    """
    requested = config.hyperparameters.max_completion_length
    limit = config.hyperparameters.sequence_length or max_length
    if requested is not None and requested >= limit:
        what = "spec.hyperparameters.sequenceLength" if limit != max_length else "the model's context"
        raise BadInput(
            "spec.hyperparameters.maxCompletionLength",
            f"{requested} tokens leave no room for a prompt: {what} is {limit} tokens",
            f"Use at most {limit // 2}.",
        )
    return requested or min(LONGEST, limit // 2)
