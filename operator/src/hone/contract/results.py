"""The result of a step, which its pod writes as termination message: at most 4096 bytes of JSON."""

from typing import Annotated

from pydantic import Field

from hone.contract import VERSION
from hone.contract.analysis import AnalysisSummary
from hone.contract.base import Model
from hone.contract.benchmarks import MAX_BENCHMARKS
from hone.contract.plan import Amount, Count, DatasetSummary, Plan, Positive
from hone.contract.search import SearchSummary
from hone.contract.verdict import Verdict

TERMINATION_MESSAGE_PATH = "/dev/termination-log"
MAX_TERMINATION_BYTES = 4096


CONFIDENCE = 0.95
"""Confidence of the intervals that are shown."""
LEVELS = (0.9, 0.99, 0.999)
"""Further confidences whose bounds are reported: a gate may be edited after the scores were made."""

Bound = Annotated[list[float], Field(min_length=2, max_length=2)]


class Bounded(Model):
    """A value with its two-sided 95 % confidence interval."""

    value: Annotated[float, Field(description="The value.")]
    lower: Annotated[float, Field(description="Lower bound of the 95 % confidence interval.")]
    upper: Annotated[float, Field(description="Upper bound of the 95 % confidence interval.")]


class Interval(Bounded):
    """The same with bounds at further confidences."""

    levels: Annotated[
        dict[Annotated[str, Field(max_length=8)], Bound] | None,
        Field(max_length=4, description="Lower and upper bound at other confidences, such as 0.99."),
    ] = None

    def at(self, confidence: float) -> tuple[float, float] | None:
        """The bounds at a confidence, or at the next higher one that is known; None: there is none."""
        known = {CONFIDENCE: (self.lower, self.upper)}
        # A pod may report others, which may be no numbers.
        known |= {level: (bounds[0], bounds[1]) for level in LEVELS if (bounds := (self.levels or {}).get(str(level)))}
        return next((known[level] for level in sorted(known) if level >= confidence), None)

    def shifted(self, by: float) -> "Interval":
        """The interval of the value plus a constant."""
        levels = {level: [bound + by for bound in bounds] for level, bounds in (self.levels or {}).items()}
        return Interval(value=self.value + by, lower=self.lower + by, upper=self.upper + by, levels=levels or None)


class Score(Model):
    """One metric of base model and tuned model on the same test rows."""

    metric: Annotated[str, Field(max_length=64, description="Name of the metric.")]
    higher_is_better: Annotated[bool, Field(description="Whether a larger value is better.")]
    samples: Annotated[Count, Field(description="Number of test rows scored.")]
    base: Annotated[Bounded, Field(description="Value of the base model.")]
    tuned: Annotated[Interval, Field(description="Value of the tuned model.")]
    improvement: Annotated[
        Interval,
        Field(description="Difference between tuned and base model, paired by row; a value above 0 is an improvement."),
    ]


class GroupScore(Model):
    """The score of the test rows of one group."""

    name: Annotated[str, Field(max_length=64, description="Value of the column.")]
    samples: Annotated[Count, Field(description="Number of test rows scored.")]
    tuned: Annotated[Bounded, Field(description="Value of the tuned model.")]
    improvement: Annotated[Bounded, Field(description="Difference between tuned and base model, paired by row.")]


class GroupSummary(Model):
    """Scores of groups of the test rows, by `evaluation.groupBy`."""

    column: Annotated[str, Field(max_length=253, description="The column.")]
    metric: Annotated[str, Field(max_length=64, description="Name of the metric.")]
    higher_is_better: Annotated[bool, Field(description="Whether a larger value is better.")]
    count: Annotated[Count, Field(description="Number of groups with enough rows.")]
    insufficient: Annotated[Count, Field(description="Number of groups with fewer than 30 rows, which have no score.")]
    samples: Annotated[Count, Field(description="Number of rows of the smallest group that has a score.")] = 0
    worst: Annotated[
        Interval | None,
        Field(description="The worst value of any group, with an interval that holds for all groups together."),
    ] = None
    worst_improvement: Annotated[
        Interval | None,
        Field(description="The least improvement of any group, with an interval that holds for all groups together."),
    ] = None
    gap: Annotated[
        Interval | None,
        Field(description="Difference between best and worst group, with an interval for all groups together."),
    ] = None
    groups: Annotated[
        list[GroupScore], Field(max_length=8, description="The groups with the worst values, the worst one first.")
    ] = []


class RetentionSummary(Model):
    """Scores of base and tuned model on general questions."""

    set: Annotated[str, Field(max_length=64, description="The questions.")]
    scores: Annotated[list[Score], Field(max_length=4, description="The metrics. The first one is the loss.")]
    skills: Annotated[
        dict[Annotated[str, Field(max_length=64)], Bounded],
        Field(max_length=16, description="Improvement of the loss by skill."),
    ] = {}


class JudgeSummary(Model):
    """What the verdicts of `evaluation.judge` show. A row's is the mean of both orders of the answers."""

    model: Annotated[str, Field(max_length=253, description="The judge.")]
    scores: Annotated[
        list[Score],
        Field(
            max_length=2,
            description="lengthControlledWinRate: share of the comparisons that the tuned model wins, where rows in "
            "which its answer is longer count as much as those in which it is shorter; absent with fewer than 10 of "
            "either. winRate: the same without that. A tie counts half.",
        ),
    ]
    ties: Annotated[float, Field(ge=0, le=1, description="Share of the verdicts that are ties.")]
    unread: Annotated[Count, Field(description="Number of rows without two verdicts that could be read.")] = 0
    agreement: Annotated[
        Bounded, Field(description="Share of the rows for which the verdict is the same in both orders.")
    ]
    first_preferred: Annotated[
        Bounded,
        Field(description="Share of the verdicts for the answer that comes first. 0.5: the order has no effect."),
    ]
    longer_preferred: Annotated[
        Bounded | None,
        Field(description="Share of the verdicts for the longer answer, whichever model gave it. 0.5: no effect."),
    ] = None
    is_blind: Annotated[
        bool, Field(description="Whether both orders agree no more often than verdicts that ignore the answers.")
    ] = False
    warnings: Annotated[
        list[Annotated[str, Field(max_length=256)]] | None,
        Field(max_length=4, description="What is wrong with the verdicts, in sentences."),
    ] = None


MAX_PROBLEMS, MAX_SCORES = 4, 3
"""Most sentences about what was not scored, and most scores of a benchmark in status."""


class BenchmarkSummary(Model):
    """Scores of base and tuned model on a data set of evaluation.benchmarks."""

    name: Annotated[str, Field(max_length=63, description="Name of the benchmark.")]
    scores: Annotated[
        list[Score], Field(max_length=MAX_SCORES, description="Scores; the first metric suits its references.")
    ]


class EvaluationSummary(Model):
    """Scores of base and tuned model on the test split. The first one is the objective's main metric."""

    scores: Annotated[
        list[Score], Field(max_length=12, description="The metrics. The first one is the main metric of the objective.")
    ]
    groups: Annotated[GroupSummary | None, Field(description="Scores by the values of evaluation.groupBy.")] = None
    retention: Annotated[
        RetentionSummary | None, Field(description="Scores on general questions, with evaluation.retention.")
    ] = None
    benchmarks: Annotated[
        list[BenchmarkSummary] | None, Field(max_length=MAX_BENCHMARKS, description="Scores on evaluation.benchmarks.")
    ] = None
    judge: Annotated[JudgeSummary | None, Field(description="What a judge prefers, with evaluation.judge.")] = None
    problems: Annotated[
        list[Annotated[str, Field(max_length=256)]] | None,
        Field(max_length=MAX_PROBLEMS, description="What was not scored, and why, in sentences."),
    ] = None
    why: Annotated[
        str | None,
        Field(max_length=256, description="Why the first metric leads, if data or spec decide that."),
    ] = None


class ArtifactSummary(Model):
    """The exported artifact."""

    digest: Annotated[str, Field(max_length=128, description="Digest of the exported files.")]
    size_bytes: Annotated[Amount, Field(description="Size of the exported files in bytes.")]
    kind: Annotated[
        str, Field(max_length=32, description="Adapter, which needs its base model, or Model, a whole model.")
    ]
    api: Annotated[
        str | None,
        Field(
            max_length=32,
            description="API of a server of the artifact: Chat (default), Classify (classes) or Reward (scores).",
        ),
    ] = None
    lora_rank: Annotated[Positive | None, Field(description="Rank of an adapter.")] = None
    base: Annotated[str | None, Field(max_length=512, description="Name of the base model.")] = None
    base_digest: Annotated[str | None, Field(max_length=128, description="Digest of the base model's files.")] = None
    max_model_length: Annotated[Positive | None, Field(description="Context length of the model in tokens.")] = None


class DownloadedModel(Model):
    """A model or data set that prepare downloaded: its revision, which does not change for this job."""

    field: Annotated[str, Field(max_length=64, description="Field of the spec that names it.")]
    uri: Annotated[str, Field(max_length=1024, description="Where it came from.")]
    revision: Annotated[
        str,
        Field(
            max_length=64,
            description="What was downloaded, and is used by all pods of this job. hf://: the commit, wherever a "
            "branch moves. s3://: SHA-256 of the list of objects with their sizes and ETags. https://: SHA-256 of the "
            "file.",
        ),
    ]
    size_bytes: Annotated[Amount, Field(description="Size of its files in bytes.")]


class PublishedModel(Model):
    """A copy of the artifact outside of the cluster."""

    uri: Annotated[str, Field(max_length=512, description="Where the copy is.")]
    digest: Annotated[
        str,
        Field(
            max_length=128,
            description="Digest of its file SHA256SUMS, which has the digest of each other file. It is not that of the "
            "artifact: the model card of the copy has the scores.",
        ),
    ]
    revision: Annotated[
        str | None,
        Field(max_length=128, description="hf://: the commit. oci://: the digest of the image's manifest."),
    ] = None
    size_bytes: Annotated[Amount, Field(description="Size of its files in bytes.")]


class InspectedModel(Model):
    """A published model, as it is where it was published."""

    artifact: ArtifactSummary
    """The model; its digest is that of SHA256SUMS."""
    weights_bytes: Amount = 0
    """Bytes of its weights and those of its base."""
    revision: Annotated[str | None, Field(max_length=64)] = None
    """hf://: the commit."""
    base_revision: Annotated[str | None, Field(max_length=64)] = None
    """hf://: the commit of its base."""


class StepResult(Model):
    """How a step ended. Has either `verdict`, if it failed, or the step's own result."""

    version: int = VERSION
    step: str
    """prepare, train, finish or publish; of a server, inspect, fetch or analyze."""
    verdict: Verdict | None = None
    dataset: DatasetSummary | None = None
    plan: Plan | None = None
    downloads: list[DownloadedModel] = []
    """prepare: the models and data sets that were downloaded."""
    evaluation: EvaluationSummary | None = None
    artifact: ArtifactSummary | None = None
    published: PublishedModel | None = None
    """publish: the copy."""
    inspected: InspectedModel | None = None
    """inspect: the published model that is to be served."""
    analysis: AnalysisSummary | None = None
    """analyze: what two revisions of a server answered."""
    final_step: Count | None = None
    """train: the optimizer step at which the run ended."""
    best_step: Count | None = None
    """train: optimizer step of the checkpoint with the lowest loss on the validation rows."""
    best_eval_loss: float | None = None
    """train: that loss."""
    validation_warning: Annotated[str | None, Field(max_length=256)] = None
    """train: that the loss on the validation rows was rising at the end, in a sentence."""
    search: SearchSummary | None = None
    """train: what a search before the training has shown."""
    restarts: Count = 0
    """train: how often the ranks were restarted within the pod."""
    changes: list[Annotated[str, Field(max_length=256)]] = []
    """train: what was done differently from the plan, and why, in sentences; at most 8."""
