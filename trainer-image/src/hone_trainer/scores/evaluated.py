"""What scoring an artifact gives, whatever the objective."""

from dataclasses import dataclass, field

from hone.contract.report import Confusion, Sample
from hone.contract.results import EvaluationSummary
from hone_trainer.scores.figures import RowFigures

SAMPLES = 20
"""Test rows whose prompts and answers go into the report."""


@dataclass(frozen=True)
class Evaluated:
    """Scores, what to know when reading them, the first rows with their answers, and figures of each row.

    Attributes:
        confusion: which classes are mistaken for which.
        figures: of each metric that has any, in the order of the test rows.
    """

    evaluation: EvaluationSummary
    notes: list[str]
    samples: list[Sample]
    confusion: Confusion | None = None
    figures: list[RowFigures] = field(default_factory=list)
