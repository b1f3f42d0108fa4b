"""What scoring an artifact gives, whatever the objective."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hone.contract.report import Confusion, Sample
from hone.contract.results import EvaluationSummary
from hone_trainer.scores.figures import RowFigures

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLES = 20
"""Test rows whose prompts and answers go into the report."""


class Pair(NamedTuple):
    """The answers of both models to a test row.

    Attributes:
        prompt: what both models got.
        reference: the answer in the test data.
        base, tuned: the models' answers.
    """

    prompt: str
    reference: str
    base: str
    tuned: str


@dataclass(frozen=True)
class Evaluated:
    """Scores, what to know when reading them, rows with their answers, and figures of each row.

    Attributes:
        confusion: which classes are mistaken for which.
        figures: of each metric that has any, in the order of the test rows.
        rows: the test rows that were scored; None: all that were passed.
        pairs: both models' answers to each of them, where they are compared with references.
    """

    evaluation: EvaluationSummary
    notes: list[str]
    samples: list[Sample]
    confusion: Confusion | None = None
    figures: list[RowFigures] = field(default_factory=list)
    rows: "Dataset | None" = None
    pairs: list[Pair] = field(default_factory=list)
