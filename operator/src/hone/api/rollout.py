"""How a new revision of a server replaces the old one."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.analysis import MOST_SAMPLES, AnalysisSummary, Performance
from hone.contract.base import Model
from hone.contract.metrics import Metric
from hone.contract.objects import ClaimPath, ConfigMapKey

MOST_STEPS = 16
HISTORY = 10


class Strategy(StrEnum):
    """How pods of a new revision replace those of the old one."""

    ROLLING_UPDATE = "RollingUpdate"
    """One by one, each once a new one is ready: needs room for one more pod."""
    RECREATE = "Recreate"
    """All old ones end before the first new one starts: needs no room, and nothing is served meanwhile."""
    CANARY = "Canary"
    """New ones run next to the old ones, get a share of the requests, and then replace them."""


class CanaryStep(Model):
    """A share of the requests, for some time."""

    weight: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="Percent of the requests that the candidate gets. It is had by the number of pods, as nearly "
            "as there are pods for it: status.candidate.weight shows the share.",
        ),
    ]
    hold_seconds: Annotated[
        int, Field(ge=0, le=604_800, description="Seconds from when the share is in force until the next step.")
    ] = 60


class AnalysisRows(Model):
    """Prompts with right answers, one JSON object a line: messages, prompt and completion, or text and label."""

    config_map: Annotated[ConfigMapKey | None, Field(description="Key of a ConfigMap with the rows.")] = None
    claim: Annotated[ClaimPath | None, Field(description="File with the rows on a PersistentVolumeClaim.")] = None


class RolloutAnalysis(Model):
    """What a candidate has to show before it gets requests: answers to the same prompts as the stable revision."""

    dataset: Annotated[AnalysisRows, Field(description="Prompts with right answers that neither model was trained on.")]
    max_samples: Annotated[
        int,
        Field(ge=10, le=MOST_SAMPLES, description="Maximum number of rows; of more, some of the whole file."),
    ] = 200
    max_new_tokens: Annotated[int, Field(ge=1, le=32_768, description="Maximum number of tokens of an answer.")] = 256
    metric: Annotated[
        Metric | None,
        Field(
            description="How answers are compared with the right ones. Default: as a FineTuneJob chooses its main "
            "metric, by the right answers. Classes are always compared by accuracy. loss is not allowed."
        ),
    ] = None
    tolerance: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="How much worse the candidate may be. It passes if the lower bound of the difference's "
            "interval is above -tolerance, fails if the upper bound is below, and is inconclusive otherwise.",
        ),
    ] = 0.05
    confidence: Annotated[
        float, Field(ge=0.5, le=0.999, description="Confidence of the interval: 0.9, 0.95, 0.99, 0.999, or the next.")
    ] = 0.95
    latency_tolerance: Annotated[
        float | None,
        Field(
            ge=0,
            le=100,
            description="How much slower 95 % of the candidate's answers may come: 0.5 allows 1.5 times the time of "
            "the stable revision. Default: any.",
        ),
    ] = None


class AnalysisStatus(Model):
    """The last analysis."""

    key: Annotated[str, Field(max_length=64, description="Digest of what is compared, and how.")]
    revision: Annotated[str, Field(max_length=64, description="Revision of the candidate.")]
    result: Annotated[AnalysisSummary | None, Field(description="What it showed; none while it runs.")] = None


class ServerPerformance(Performance):
    """How fast a revision is, as the analysis of its rollout measured it, and what its tokens cost."""

    revision: Annotated[str, Field(max_length=64, description="The revision, which is the one that is served.")]
    cost_per_million_tokens: Annotated[
        float | None,
        Field(
            ge=0,
            description="What a million tokens of answers cost at this concurrency, by the administrator's price of "
            "the GPUs. More requests at a time cost less each.",
        ),
    ] = None
    currency: Annotated[str | None, Field(max_length=16, description="Currency of the cost.")] = None


class Rollout(Model):
    """How a new revision replaces the one that is served."""

    strategy: Annotated[
        Strategy,
        Field(
            description="RollingUpdate (default) replaces pods one by one, and needs room for one more. Recreate ends "
            "all old pods first, needs no room, and serves nothing meanwhile. Canary starts the new revision next to "
            "the old one and replaces that only after all steps."
        ),
    ] = Strategy.ROLLING_UPDATE
    steps: Annotated[
        list[CanaryStep] | None,
        Field(
            max_length=MOST_STEPS,
            description="Shares of the requests that the candidate gets one after the other. Default: none, it "
            "replaces the old revision once it is ready. Allowed only with Canary.",
        ),
    ] = None
    analysis: Annotated[
        RolloutAnalysis | None,
        Field(
            description="Compare the candidate with the stable revision before it gets any request. Allowed only with "
            "Canary."
        ),
    ] = None
    paused: Annotated[
        bool | None,
        Field(description="Whether a candidate stays at its share until this is false. Allowed only with Canary."),
    ] = None
    retry: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=63,
            description="Any text. Another one than before gives revisions another try that were rejected.",
        ),
    ] = None


class Rejected(Model):
    """A revision that was tried and is not served."""

    revision: Annotated[str, Field(max_length=64, description="The revision.")]
    reason: Annotated[str, Field(max_length=64, description="Why, in one word.")]
    message: Annotated[str, Field(max_length=1024, description="The same for people.")]
    inputs: Annotated[str, Field(max_length=64, description="Digest of the spec and artifact that it was made from.")]
    retry: Annotated[str | None, Field(max_length=63, description="spec.rollout.retry when it was tried.")] = None
