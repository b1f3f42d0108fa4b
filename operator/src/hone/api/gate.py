"""The gate of a FineTuneJob: rules on the scores that the tuned model must meet to be served, and what was decided."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.meta import Text
from hone.contract.base import Model
from hone.contract.benchmarks import NAME
from hone.contract.plan import Count

MAX_RULES = 8
Metric = Annotated[str, Field(min_length=1, max_length=64)]


class Rows(StrEnum):
    """Rows whose score a rule is about."""

    TEST = "Test"
    WORST_GROUP = "WorstGroup"
    RETENTION = "Retention"
    GROUP_GAP = "GroupGap"
    JUDGE = "Judge"
    BENCHMARK = "Benchmark"


class GateRule(Model):
    """One bar. Exactly one of min, max, minImprovement and maxRegression must be set."""

    metric: Annotated[
        Metric | None,
        Field(description="Metric of status.evaluation, such as exactMatch or loss. Default: the main metric."),
    ] = None
    of: Annotated[
        Rows,
        Field(
            description="Rows whose score is compared. Test: all test rows. WorstGroup: the rows of each group of "
            "evaluation.groupBy, all of which must reach the bar. GroupGap: the difference between the best and the "
            "worst of these groups; needs max. Retention: the questions of evaluation.retention. Judge: the verdicts "
            "of evaluation.judge, of which min: 0.5 demands that the tuned model is preferred. Benchmark: the rows "
            "of the one that benchmark names."
        ),
    ] = Rows.TEST
    benchmark: Annotated[
        str | None,
        Field(
            min_length=1, max_length=63, pattern=NAME, description="Name in evaluation.benchmarks, with of: Benchmark."
        ),
    ] = None
    min: Annotated[
        float | None, Field(description="Least score of the tuned model. For metrics of which more is better.")
    ] = None
    max: Annotated[
        float | None,
        Field(description="Largest score of the tuned model. For metrics of which less is better, such as loss."),
    ] = None
    min_improvement: Annotated[
        float | None,
        Field(
            ge=0,
            description="Least improvement over the base model on the same rows, in the units of the metric. 0: not "
            "worse.",
        ),
    ] = None
    max_regression: Annotated[
        float | None,
        Field(
            ge=0,
            description="How much worse than the base model on the same rows the tuned model may be, in the units of "
            "the metric.",
        ),
    ] = None


class Gate(Model):
    """What the scores must show before the tuned model may be served."""

    confidence: Annotated[
        float,
        Field(
            ge=0.9,
            le=0.99,
            json_schema_extra={"enum": [0.9, 0.95, 0.99]},
            description="Confidence of the intervals that are compared with the bars: 0.9, 0.95 or 0.99. With 0.95, a "
            "model that misses any bar passes in at most 2.5 % of cases.",
        ),
    ] = 0.95
    rules: Annotated[
        list[GateRule], Field(min_length=1, max_length=MAX_RULES, description="The rules, all of which must pass.")
    ]


class GateVerdict(StrEnum):
    """What the scores show about a bar."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class RuleResult(Model):
    """What the scores show about one rule."""

    rule: Annotated[str, Field(max_length=128, description="The rule as text, such as exactMatch improvement >= 0.05.")]
    verdict: Annotated[
        GateVerdict,
        Field(
            description="Pass: the whole interval reaches the bar. Fail: all of it misses the bar. Inconclusive: the "
            "bar is inside, or there is no interval."
        ),
    ]
    value: Annotated[float | None, Field(description="The figure that is compared with the bar.")] = None
    lower: Annotated[float | None, Field(description="Lower bound of its interval at the gate's confidence.")] = None
    upper: Annotated[float | None, Field(description="Upper bound of its interval at the gate's confidence.")] = None
    bar: Annotated[float, Field(description="The bar; a regression is a negative improvement.")]
    samples: Annotated[Count | None, Field(description="Number of rows behind the figure.")] = None
    message: Annotated[Text | None, Field(description="Why nothing was decided, and what would decide it.")] = None


class GateStatus(Model):
    """What the gate decided."""

    decision: Annotated[
        GateVerdict | None,
        Field(description="Pass: all rules pass. Fail: at least one fails. Inconclusive otherwise. Absent: no scores."),
    ] = None
    confidence: Annotated[float, Field(description="Confidence of the intervals.")]
    message: Annotated[Text, Field(description="Which rule decided, with its figures.")]
    expectation: Annotated[
        list[Text] | None,
        Field(max_length=MAX_RULES + 1, description="What as many test rows as there are can show, before training."),
    ] = None
    rules: Annotated[
        list[RuleResult] | None, Field(max_length=MAX_RULES, description="The rules, in the order of the spec.")
    ] = None
