"""How classification is scored: the tuned model's probabilities against the most frequent class of the training rows.

macroF1            mean over the classes of 2 · TP / (2 · TP + FP + FN); classes that neither occur in the rows
                   nor are predicted are left out
accuracy           share of rows whose most probable class is theirs
calibrationError   expected calibration error in 10 bins of equal width: Σ |B| / n · |accuracy(B) − confidence(B)|,
                   a row's confidence being the probability of its most probable class
                   (C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3)

Texts that may have several classes are scored by `hone_trainer.scores.several_classes`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hone.contract.report import MAX_CONFUSED, MAX_LABEL, Confusion, Sample
from hone.contract.results import EvaluationSummary, Score
from hone.contract.runconfig import RunConfig
from hone_trainer.data.classes import Classes
from hone_trainer.data.labels import in_words, padding_id
from hone_trainer.methods import METHODS
from hone_trainer.models.architectures import CLASSIFIER
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.models.inference import for_inference
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.scores import several_classes
from hone_trainer.scores.batches import in_batches, padded
from hone_trainer.scores.evaluated import SAMPLES, Evaluated
from hone_trainer.scores.figures import RowFigures, telling_rows
from hone_trainer.scores.intervals import bootstrap, paired_difference, proportion

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from hone_trainer.data.prepared import Prepared

BINS = 10

logger = logging.getLogger(__name__)


def evaluate(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", test: "Dataset", directory: Path, dtype: torch.dtype
) -> Evaluated:
    """Score the exported model against the most frequent class; arguments as in `scores.answers.evaluate`."""
    classes = prepared.classes
    if classes is None:
        raise ValueError(f"{prepared.directory} holds no classes")
    if not len(test):
        return Evaluated(EvaluationSummary(scores=[]), ["The test split has no rows, so nothing was measured."], [])
    model = METHODS[config.method.type].load(config, CLASSIFIER, directory, dtype)
    pad = padding_id(load_tokenizer(directory))
    tuned = probabilities(model, test["prompt_ids"][:], pad, several=classes.several)
    evaluation, notes = _compare(classes, test["label"][:], tuned)
    base = _named(classes, several_classes.guess(classes) if classes.several else np.array(classes.rows))
    figures = _right(classes, test["label"][:], tuned)
    samples = [
        Sample(
            prompt=test["prompt"][row],
            reference=test["reference"][row],
            base=base,
            tuned=_named(classes, tuned[row]),
            probabilities={name: round(float(share), 6) for name, share in zip(classes.names, tuned[row], strict=True)},
            gain=float(figures.gains()[row]),
        )
        for row in telling_rows(figures, len(test), SAMPLES)
    ]
    # Classes of which a text may have several are not mistaken for one another.
    table = None if classes.several else confusion(classes.names, np.array(test["label"][:]), tuned.argmax(axis=1))
    return Evaluated(evaluation, notes, samples, table, [figures])


def _right(classes: Classes, labels: list[Any], tuned: np.ndarray) -> RowFigures:
    """Whether the class, or the set of classes, of each row is right."""
    if not classes.several:
        right = np.array(labels)
        guess = np.full(len(right), classes.majority)
        return RowFigures("accuracy", (guess == right).astype(float), (tuned.argmax(axis=1) == right).astype(float))
    chosen = [{*map(int, np.flatnonzero(row >= several_classes.THRESHOLD))} for row in tuned]
    base = {*map(int, np.flatnonzero(several_classes.guess(classes)))}
    hits = [(base == {*right}, answer == {*right}) for answer, right in zip(chosen, labels, strict=True)]
    of_base, of_tuned = np.array(hits, dtype=float).T
    return RowFigures("subsetAccuracy", of_base, of_tuned)


def _compare(classes: Classes, labels: list[Any], tuned: np.ndarray) -> tuple[EvaluationSummary, list[str]]:
    """As `compare`, with the labels as prepared data have them."""
    if not classes.several:
        return compare(classes, np.array(labels), tuned)
    truth = np.zeros(tuned.shape, dtype=bool)
    for row, indices in zip(truth, labels, strict=True):
        row[indices] = True
    return several_classes.compare(classes, truth, tuned)


def _named(classes: Classes, figures: np.ndarray) -> str:
    """The class with the largest of these figures; where a text may have several, those of a half or more."""
    chosen = np.flatnonzero(figures >= several_classes.THRESHOLD) if classes.several else [figures.argmax()]
    return in_words([classes.names[int(index)] for index in chosen])


def probabilities(model: "PreTrainedModel", rows: list[list[int]], pad: int, *, several: bool = False) -> np.ndarray:
    """Each row's probabilities as servers give them, shape [rows, classes]: by softmax over the classes, or of each
    class by itself where a text may have several."""
    logits = torch.from_numpy(outputs(model, rows, pad, "tuned: classes"))
    return (torch.sigmoid(logits) if several else torch.softmax(logits, dim=-1)).numpy()


def outputs(model: "PreTrainedModel", rows: list[list[int]], pad: int, what: str) -> np.ndarray:
    """What the head gives for each row, in fp32; shape [rows, labels]. `what` names it in the log."""
    model = for_inference(model)
    labels = model.config.num_labels
    if labels is None:
        raise ValueError("the model has no labels")
    figures = np.zeros((len(rows), labels), dtype=np.float32)

    def score(batch: list[int]) -> None:
        ids, mask = padded([rows[index] for index in batch], pad, left=False, device=model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        figures[batch] = logits.cpu().numpy()

    with torch.inference_mode():
        in_batches(model, score, [len(ids) for ids in rows], 0, what)
    return figures


def compare(classes: Classes, truth: np.ndarray, tuned: np.ndarray) -> tuple[EvaluationSummary, list[str]]:
    """The scores, macro F1 first, and notes on them in sentences.

    Args:
        classes: all classes with their training rows.
        truth: index of each row's class, shape [rows]; at least one row.
        tuned: the tuned model's probabilities, shape [rows, classes].
    """
    guess = np.full(len(truth), classes.majority)
    # The base is as confident of its class as the class's share of the training rows.
    share = np.full(len(truth), max(classes.rows) / sum(classes.rows))
    answer, confidence = tuned.argmax(axis=1), tuned.max(axis=1)
    right, guessed = answer == truth, guess == truth
    accuracy = Score(
        metric="accuracy",
        higher_is_better=True,
        samples=len(truth),
        base=proportion(guessed),
        tuned=proportion(right),
        improvement=paired_difference(guessed, right),
    )
    scores = [
        _macro_f1_score(truth, guess, answer, len(classes.names)),
        accuracy,
        _calibration_score((share, guessed), (confidence, right)),
    ]
    return EvaluationSummary(scores=scores), _notes(classes, truth, right)


def _macro_f1_score(truth: np.ndarray, base: np.ndarray, tuned: np.ndarray, classes: int) -> Score:
    """Macro F1 of base and tuned model; indices of classes, shape [rows] each."""

    def f1(predicted: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return macro_f1(truth[rows], predicted[rows], classes)

    return Score(
        metric="macroF1",
        higher_is_better=True,
        samples=len(truth),
        base=bootstrap(lambda rows: f1(base, rows), len(truth)),
        tuned=bootstrap(lambda rows: f1(tuned, rows), len(truth)),
        improvement=bootstrap(lambda rows: f1(tuned, rows) - f1(base, rows), len(truth)),
    )


def _calibration_score(base: tuple[np.ndarray, np.ndarray], tuned: tuple[np.ndarray, np.ndarray]) -> Score:
    """Calibration error of base and tuned model, each as confidence and correctness; shape [rows] each."""
    count = len(base[0])

    def error(model: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> np.ndarray:
        confidence, right = model
        return calibration_error(confidence[rows], right[rows])

    return Score(
        metric="calibrationError",
        higher_is_better=False,
        samples=count,
        base=bootstrap(lambda rows: error(base, rows), count),
        tuned=bootstrap(lambda rows: error(tuned, rows), count),
        improvement=bootstrap(lambda rows: error(base, rows) - error(tuned, rows), count),
    )


def macro_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Macro F1 of each sample; indices of shape [samples, rows] in, shape [samples] out."""

    def counts(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        offsets = np.arange(len(values))[:, None] * classes
        flat = (values + offsets)[chosen]
        return np.bincount(flat, minlength=len(values) * classes).reshape(len(values), classes)

    every = np.ones(truth.shape, dtype=bool)
    # Rows of the class and rows predicted as it: 2 · TP + FP + FN.
    both = counts(truth, every) + counts(predicted, every)
    hits = counts(truth, truth == predicted)
    f1 = np.divide(2.0 * hits, both, out=np.zeros(both.shape), where=both > 0)
    return np.asarray(f1.sum(axis=1) / (both > 0).sum(axis=1))


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Expected calibration error of each sample; shape [samples, rows] in, shape [samples] out."""
    samples, rows = confidence.shape
    # Bins are open at their lower end, as in the paper: ((m − 1) / 10, m / 10].
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1) + np.arange(samples)[:, None] * BINS
    gaps = np.bincount(bins.ravel(), weights=(right - confidence).ravel(), minlength=samples * BINS)
    return np.asarray(np.abs(gaps).reshape(samples, BINS).sum(axis=1) / rows)


def confusion(names: Sequence[str], truth: np.ndarray, predicted: np.ndarray) -> Confusion:
    """Which classes are taken for which, by their indices of shape [rows]: the most frequent ones, and all others."""
    counts = np.bincount(truth * len(names) + predicted, minlength=len(names) ** 2).reshape(len(names), len(names))
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    shown, rest = order[:MAX_CONFUSED], order[MAX_CONFUSED:]
    lines = np.vstack([counts[shown], counts[rest].sum(axis=0, keepdims=True)])
    table = np.hstack([lines[:, shown], lines[:, rest].sum(axis=1, keepdims=True)])
    return Confusion(labels=[names[index][:MAX_LABEL] for index in shown], counts=table.tolist())


def _notes(classes: Classes, truth: np.ndarray, right: np.ndarray) -> list[str]:
    majority = classes.names[classes.majority]
    notes = [
        f"The base is the most frequent class of the training rows, `{majority}`: the base model itself has no classes."
    ]
    missing = len(classes.names) - len(np.unique(truth))
    if missing:
        notes.append(f"{missing} of {len(classes.names)} classes have no test row, so macroF1 does not measure them.")
    if right.all():
        notes.append(
            "Every test row is classified correctly, so the interval of macroF1 has no width: use that of accuracy."
        )
    return notes
