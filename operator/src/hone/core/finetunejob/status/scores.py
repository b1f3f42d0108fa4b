"""Scores as text for the columns."""

from hone.contract.results import EvaluationSummary, Interval
from hone.core import figures


def score(evaluation: EvaluationSummary) -> str | None:
    """The tuned model's main metric, such as `0.91`."""
    return figures.text(evaluation.scores[0].tuned.value) if evaluation.scores else None


def improvement(evaluation: EvaluationSummary) -> str | None:
    """How much better than the base, such as `+0.62 [0.55, 0.69]`."""
    if not evaluation.scores:
        return None
    delta: Interval = evaluation.scores[0].improvement
    sign = "+" if delta.value >= 0 else ""
    return f"{sign}{figures.interval(delta.value, delta.lower, delta.upper)}"
