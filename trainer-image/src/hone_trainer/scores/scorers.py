"""Metrics of answers by functions of the user's own."""

from collections.abc import Sequence

import numpy as np

from hone.contract.results import Score
from hone.contract.scorers import Scorer
from hone.contract.settings import Evaluation
from hone_trainer.rewards.checks import check_code
from hone_trainer.rewards.code import load_function
from hone_trainer.scores.evaluated import Pair
from hone_trainer.scores.figures import RowFigures, score

ROWS_AT_ONCE = 32
"""Answers of a call, for which the function has a time limit."""


def check(evaluation: Evaluation) -> None:
    """Check that every scorer can be called; none is run.

    Raises:
        BadInput: one cannot, with its field.
    """
    for index, scorer in enumerate(evaluation.scorers or []):
        check_code(field_of(index), scorer.as_function())


def field_of(index: int) -> str:
    """The field of the spec that names a scorer."""
    return f"spec.evaluation.scorers[{index}]"


def measure(scorer: Scorer, index: int, pairs: Sequence[Pair]) -> Score | None:
    """The scores of both models; None if it applies to no row.

    Args:
        scorer: the function.
        index: its place in the spec's list.
        pairs: the answers to the test rows.

    Raises:
        BadInput: the function fails, or does not return a number for each answer.
    """
    check_code(field_of(index), scorer.as_function())
    call = load_function(field_of(index), scorer.as_function())

    def figures(answers: list[str]) -> np.ndarray:
        values = list[float | None]()
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            part = pairs[start : start + ROWS_AT_ONCE]
            values += call(
                prompts=[pair.prompt for pair in part],
                completions=answers[start : start + ROWS_AT_ONCE],
                reference=[pair.reference for pair in part],
            )
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    base, tuned = figures([pair.base for pair in pairs]), figures([pair.tuned for pair in pairs])
    return score(RowFigures(scorer.name, base, tuned, higher_is_better=scorer.higher_is_better))
