"""What scoring an artifact gives, whatever the objective."""

from dataclasses import dataclass

from hone.contract.report import Sample
from hone.contract.results import EvaluationSummary

SAMPLES = 20
"""Test rows whose prompts and answers go into the report."""


@dataclass(frozen=True)
class Evaluated:
    """Scores, what to know when reading them, and the first rows with their answers."""

    evaluation: EvaluationSummary
    notes: list[str]
    samples: list[Sample]
