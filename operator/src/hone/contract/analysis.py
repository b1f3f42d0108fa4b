"""The analysis of a rollout: what its pod is to ask two revisions of a server, and what it reports."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.metrics import Metric
from hone.contract.plan import Count, Positive

ANALYSIS_ENV = "HONE_ANALYSIS"
"""Environment variable that holds an `Analysis` as JSON."""
MOST_SAMPLES = 5_000
MIN_KEY, MAX_KEY = 16, 4096
"""Bytes of a key: the server's guard counts no others."""


class AnalysisVerdict(StrEnum):
    """What an analysis shows."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    """The rows are too few to tell. A person decides."""


class Analysis(Model):
    """What to ask both revisions, and by what to compare the answers."""

    stable: str
    """Address of the revision that is served."""
    candidate: str
    """Address of the one that is to replace it."""
    model: str
    """The model's name in requests."""
    api: str
    """Chat or Classify."""
    rows: str
    """File with the prompts and right answers, one JSON object a line."""
    max_samples: int
    max_tokens: int
    metric: Metric | None = None
    """None: the one that suits the right answers."""
    tolerance: float
    """How much worse the candidate may be."""
    latency_tolerance: float | None = None
    """How much slower it may be, as a share; None: any."""
    confidence: float
    keys: str | None = None
    """Directory of files with keys of the candidate, of which any is sent; None: none is needed."""
    stable_keys: str | None = None
    """The same of the revision that is served, which may have other clients."""


class Difference(Model):
    """A difference with its interval at the confidence of the spec, or the next higher one that is known."""

    value: Annotated[float, Field(description="The difference.")]
    lower: Annotated[float, Field(description="Lower bound of its interval.")]
    upper: Annotated[float, Field(description="Upper bound of its interval.")]


class Latency(Model):
    """How long answers took, in seconds."""

    p50: Annotated[float, Field(description="Half of the answers came within this time.")]
    p95: Annotated[float, Field(description="95 % of the answers came within this time.")]


class Performance(Model):
    """How fast one server pod answers, a few prompts at a time, without what its prefix cache would save."""

    ttft_p50: Annotated[float, Field(ge=0, description="Half of the first tokens came within these seconds.")]
    ttft_p95: Annotated[float, Field(ge=0, description="95 % of the first tokens came within these seconds.")]
    tokens_per_second: Annotated[float, Field(ge=0, description="Tokens of all answers per second.")]
    concurrency: Annotated[Positive, Field(description="Number of prompts that were answered at the same time.")]
    requests: Annotated[Positive, Field(description="Number of prompts that were answered.")]


class AnalysisSummary(Model):
    """What two revisions answered to the same prompts."""

    verdict: Annotated[AnalysisVerdict, Field(description="Pass, Fail or Inconclusive.")]
    message: Annotated[str, Field(max_length=512, description="Why, in a sentence.")]
    metric: Annotated[str | None, Field(max_length=64, description="Name of the metric.")] = None
    samples: Annotated[Count, Field(description="Number of prompts that both answered.")] = 0
    stable: Annotated[float | None, Field(description="Value of the revision that is served.")] = None
    candidate: Annotated[float | None, Field(description="Value of the candidate.")] = None
    difference: Annotated[
        Difference | None, Field(description="Candidate minus stable, paired by prompt, with its interval.")
    ] = None
    errors: Annotated[Count, Field(description="Number of prompts that the candidate answered with an error.")] = 0
    stable_latency: Annotated[Latency | None, Field(description="Latency of the revision that is served.")] = None
    candidate_latency: Annotated[Latency | None, Field(description="Latency of the candidate.")] = None
    performance: Annotated[
        Performance | None, Field(description="How fast the candidate is, measured after the comparison; Chat only.")
    ] = None
