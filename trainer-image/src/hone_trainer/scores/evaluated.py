"""What scoring an artifact gives, whatever the objective."""

from dataclasses import dataclass

from hone.contract.report import Confusion, Sample
from hone.contract.results import EvaluationSummary

SAMPLES = 20
"""Test rows whose prompts and answers go into the report."""


@dataclass(frozen=True)
class Evaluated:
    """Scores, what to know when reading them, the first rows with their answers, and which classes are mistaken."""

    evaluation: EvaluationSummary
    notes: list[str]
    samples: list[Sample]
    confusion: Confusion | None = None
