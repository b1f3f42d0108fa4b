"""How the classes of texts that may have several are scored: those of a probability of a half or more, against the
classes that most training rows have.

macroF1         mean over the classes of 2 · TP / (2 · TP + FP + FN); classes that neither occur in the rows nor are
                predicted are left out
microF1         the same of all classes together: 2 · Σ TP / (2 · Σ TP + Σ FP + Σ FN)
subsetAccuracy  share of rows all of whose classes are predicted, and no other
"""

from collections.abc import Callable

import numpy as np

from hone.contract.results import EvaluationSummary, Score
from hone_trainer.data.classes import Classes
from hone_trainer.scores.intervals import bootstrap, paired_difference, proportion

THRESHOLD = 0.5
"""The probability from which a text has a class."""

Counts = tuple[np.ndarray, np.ndarray]
"""Of each sample: how often each class is predicted rightly, and how often it occurs or is predicted in all; shape
[samples, classes]."""


def guess(classes: Classes) -> np.ndarray:
    """The classes of more than half of the training rows, or else the most frequent one; shape [classes]."""
    shares = np.array(classes.rows) / max(1, classes.total or 0)
    chosen = shares > THRESHOLD
    chosen[classes.majority] = True
    return chosen


def compare(classes: Classes, truth: np.ndarray, tuned: np.ndarray) -> tuple[EvaluationSummary, list[str]]:
    """The scores, macro F1 first, and notes on them in sentences.

    Args:
        classes: all classes with their training rows.
        truth: whether each row has each class, booleans of shape [rows, classes]; at least one row.
        tuned: the tuned model's probabilities, of the same shape.
    """
    base = np.broadcast_to(guess(classes), truth.shape)
    answers = tuned >= THRESHOLD
    of_base, of_tuned = (base == truth).all(axis=1), (answers == truth).all(axis=1)
    subsets = Score(
        metric="subsetAccuracy",
        higher_is_better=True,
        samples=len(truth),
        base=proportion(of_base),
        tuned=proportion(of_tuned),
        improvement=paired_difference(of_base, of_tuned),
    )
    scores = [_f1("macroF1", macro, truth, base, answers), _f1("microF1", micro, truth, base, answers), subsets]
    return EvaluationSummary(scores=scores), _notes(classes, truth, of_tuned)


def macro(counts: Counts) -> np.ndarray:
    """Macro F1 of each sample; 0 where no class counts."""
    hits, both = counts
    f1 = np.divide(2.0 * hits, both, out=np.zeros(both.shape), where=both > 0)
    return np.asarray(f1.sum(axis=1) / np.maximum(1, (both > 0).sum(axis=1)))


def micro(counts: Counts) -> np.ndarray:
    """Micro F1 of each sample; 0 where no class counts."""
    hits, both = (each.sum(axis=1) for each in counts)
    return np.asarray(np.divide(2.0 * hits, both, out=np.zeros(both.shape), where=both > 0))


def _f1(
    metric: str, figure: Callable[[Counts], np.ndarray], truth: np.ndarray, base: np.ndarray, tuned: np.ndarray
) -> Score:
    """A score with the bootstrap intervals of both models and of their difference."""

    def of(predicted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        hits = (truth & predicted).astype(np.float32)
        both = truth.astype(np.float32) + predicted
        return lambda rows: figure(_resampled(hits, both, rows))

    of_base, of_tuned = of(base), of(tuned)
    return Score(
        metric=metric,
        higher_is_better=True,
        samples=len(truth),
        base=bootstrap(of_base, len(truth)),
        tuned=bootstrap(of_tuned, len(truth)),
        improvement=bootstrap(lambda rows: of_tuned(rows) - of_base(rows), len(truth)),
    )


def _resampled(hits: np.ndarray, both: np.ndarray, rows: np.ndarray) -> Counts:
    """The counts of samples of rows, by how often each row is in each: a product of matrices instead of a copy of all
    rows for each sample. Whole numbers below 2^24 are exact in float32."""
    samples, count = len(rows), len(hits)
    flat = (rows + np.arange(samples)[:, None] * count).ravel()
    times = np.bincount(flat, minlength=samples * count).reshape(samples, count).astype(np.float32)
    return times @ hits, times @ both


def _notes(classes: Classes, truth: np.ndarray, right: np.ndarray) -> list[str]:
    names = ", ".join(f"`{name}`" for name, chosen in zip(classes.names, guess(classes), strict=True) if chosen)
    notes = [
        f"The base gives every row {names}: the classes of more than half of the training rows, or the most frequent "
        "one. The base model itself has no classes.",
        f"A text has each class of a probability of {THRESHOLD} or more.",
    ]
    missing = int((~truth.any(axis=0)).sum())
    if missing:
        notes.append(f"{missing} of {len(classes.names)} classes have no test row, so macroF1 does not measure them.")
    if right.all():
        notes.append(
            "Every test row has exactly its classes, so the intervals of F1 have no width: use that of subsetAccuracy."
        )
    return notes
