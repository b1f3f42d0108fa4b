"""Scores as text for the columns."""

from hone.contract.results import EvaluationSummary, Interval

MAX_PLAIN = 1e9
"""The column has 64 characters for a score with its interval."""


def _text(value: float) -> str:
    """Two decimals; in powers of ten where two would hide the figure, or need hundreds of digits before them."""
    return f"{value:.2f}" if value == 0 or 0.01 <= abs(value) < MAX_PLAIN else f"{value:.1e}"


def score(evaluation: EvaluationSummary) -> str | None:
    """The tuned model's main metric, such as `0.91`."""
    return _text(evaluation.scores[0].tuned.value) if evaluation.scores else None


def improvement(evaluation: EvaluationSummary) -> str | None:
    """How much better than the base, such as `+0.62 [0.55, 0.69]`."""
    if not evaluation.scores:
        return None
    delta: Interval = evaluation.scores[0].improvement
    sign = "+" if delta.value >= 0 else ""
    return f"{sign}{_text(delta.value)} [{_text(delta.lower)}, {_text(delta.upper)}]"
