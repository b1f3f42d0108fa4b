"""What a step's pod leaves behind as its termination message: at most 4096 bytes of JSON."""

from typing import Annotated

from pydantic import Field

from hone.contract import VERSION
from hone.contract.base import Model
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.verdict import Verdict

TERMINATION_MESSAGE_PATH = "/dev/termination-log"
MAX_TERMINATION_BYTES = 4096


class Interval(Model):
    """A figure with its two-sided 95 % interval."""

    value: Annotated[float, Field(description="The figure.")]
    lower: Annotated[float, Field(description="Lower end of the 95 % interval.")]
    upper: Annotated[float, Field(description="Upper end of the 95 % interval.")]


class Score(Model):
    """One metric of base and tuned model on the same test rows."""

    metric: Annotated[str, Field(max_length=64, description="Name of the metric.")]
    higher_is_better: Annotated[bool, Field(description="Whether a larger figure is the better one.")]
    samples: Annotated[int, Field(ge=0, description="Test rows scored.")]
    base: Annotated[Interval, Field(description="The base model's figure.")]
    tuned: Annotated[Interval, Field(description="The tuned model's figure.")]
    improvement: Annotated[
        Interval, Field(description="Tuned against base, signed so that above 0 is better; paired over the rows.")
    ]


class EvaluationSummary(Model):
    """Scores of base and tuned model on the test split. The first one is the objective's main metric."""

    scores: Annotated[list[Score], Field(max_length=8, description="The metrics, the main one first.")]


class ArtifactSummary(Model):
    """What was exported."""

    digest: Annotated[str, Field(max_length=128, description="Digest over the exported files.")]
    size_bytes: Annotated[int, Field(ge=0, description="Size of the exported files.")]
    kind: Annotated[str, Field(max_length=32, description="Adapter or Model.")]
    api: Annotated[
        str | None,
        Field(
            max_length=32,
            description="What a server of it answers: Chat (default), Classify for classes, Reward for scores.",
        ),
    ] = None
    lora_rank: Annotated[int | None, Field(description="An adapter's rank.")] = None
    base: Annotated[str | None, Field(max_length=512, description="Name of the base model.")] = None
    base_digest: Annotated[str | None, Field(max_length=128, description="Digest of the base model's files.")] = None
    max_model_length: Annotated[
        int | None, Field(description="Longest context in tokens that the model was made for.")
    ] = None


class StepResult(Model):
    """How a step ended. Exactly one of `verdict` (it failed) and the step's own result is there."""

    version: int = VERSION
    step: str
    """prepare, train or finish."""
    verdict: Verdict | None = None
    dataset: DatasetSummary | None = None
    plan: Plan | None = None
    evaluation: EvaluationSummary | None = None
    artifact: ArtifactSummary | None = None
    final_step: Annotated[int | None, Field(ge=0)] = None
    """train: the optimizer step at which the run ended."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """train: how often the ranks were started anew within the pod."""
    changes: list[Annotated[str, Field(max_length=256)]] = []
    """train: what was done otherwise than planned, and why, in sentences; at most 8."""
