"""The history of a run's figures, from which the report draws its curves. It is bounded, whatever the run's length."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.plan import Amount, Count, Positive

MAX_POINTS = 512
"""Most points of a history; beyond it, neighbors become one."""
MAX_EVALUATIONS = 512
"""Most evaluations of a history; beyond it, every other one is left out."""
MAX_RESUMES = 64
"""Most resumes of a history, the newest ones."""


class HistoryPoint(Model):
    """What training logged up to a step: one log line, or several neighbors merged."""

    step: Annotated[Count, Field(description="Optimizer step of the last log line.")]
    lines: Annotated[Positive, Field(description="Number of log lines.")] = 1
    loss: Annotated[float | None, Field(description="Mean training loss.")] = None
    reward: Annotated[float | None, Field(description="Mean reward of generated answers.")] = None
    learning_rate: Annotated[float | None, Field(description="Learning rate of the last log line.")] = None
    grad_norm: Annotated[float | None, Field(description="Largest norm of the gradient, before clipping.")] = None
    tokens_per_second: Annotated[float | None, Field(description="Mean tokens per second over all processes.")] = None
    memory_bytes: Annotated[
        Amount | None,
        Field(description="Largest memory of the first process so far: tensors on its GPU, else resident memory."),
    ] = None
    tokens: Annotated[Amount, Field(description="Tokens of all steps up to here, without padding.")] = 0
    seconds: Annotated[
        float, Field(ge=0, description="Seconds of training of all steps up to here, without saves and evaluations.")
    ] = 0.0


class EvaluationPoint(Model):
    """The loss on the validation rows at a step."""

    step: Annotated[Count, Field(description="Optimizer step.")]
    loss: Annotated[float, Field(description="Mean loss on the validation rows.")]


class History(Model):
    """The figures of a run by optimizer step, steps that were done again counted once."""

    points: Annotated[list[HistoryPoint], Field(max_length=MAX_POINTS, description="Log lines, by step.")] = []
    evaluations: Annotated[
        list[EvaluationPoint], Field(max_length=MAX_EVALUATIONS, description="Validation losses, by step.")
    ] = []
    resumed_at: Annotated[
        list[Count], Field(max_length=MAX_RESUMES, description="Steps of the checkpoints that attempts resumed from.")
    ] = []

    @property
    def tokens(self) -> int:
        """Tokens of the steps in the history, without padding, over all processes."""
        return self.points[-1].tokens if self.points else 0

    @property
    def seconds(self) -> float:
        """Seconds of training of these steps, without starts, saves and evaluations."""
        return self.points[-1].seconds if self.points else 0.0
