"""How models that were taught to prefer one answer to another are scored, by the probabilities of given answers.

Log-probabilities are summed over an answer's tokens, as in the loss of DPO, not divided by their number.

preferenceAccuracy  share of pairs with log p(chosen) > log p(rejected), for the tuned model and for the base
rewardAccuracy      share of pairs whose better answer gained more: with r = log p_tuned - log p_base, r(chosen) >
                    r(rejected). That is what DPO trains for; the base has no r: its value is 0.5, chance
rewardAUC           of rated answers, which have no pairs: the probability that a good one has a higher r than a bad
                    one, 1/2 for the same r (area under the ROC curve). The sign of r alone would not do: all answers
                    may gain, or all may lose, and KTO compares with how much they do. Chance is 0.5
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hone.contract.report import Sample
from hone.contract.results import EvaluationSummary, Interval, Score
from hone.contract.runconfig import RunConfig
from hone_trainer.data.classes import RATED
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.methods import METHODS
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.models.inference import division, for_inference
from hone_trainer.models.loading import load_model
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.scores.evaluated import SAMPLES, Evaluated
from hone_trainer.scores.figures import RowFigures, telling_rows
from hone_trainer.scores.intervals import bootstrap, paired_difference, proportion
from hone_trainer.scores.pairs import CHANCE, NO_ROWS, against_chance
from hone_trainer.scores.rows import likelihoods

if TYPE_CHECKING:
    from datasets import Dataset

    from hone_trainer.data.prepared import Prepared

_ALIKE = "Nearly all bootstrap samples have the same value"
_WITHOUT_WIDTH = {
    1.0: "Every good answer gained more than every bad one",
    0.0: "Every bad answer gained more than every good one",
}
_UNEVEN = 1.25
"""Ratio of the lengths of better and worse answers above which a note mentions it."""


def evaluate_pairs(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", test: "Dataset", directory: Path, dtype: torch.dtype
) -> Evaluated:
    """Score the exported model against its base; arguments as in `scores.answers.evaluate`."""
    if not len(test):
        return Evaluated(EvaluationSummary(scores=[]), [NO_ROWS], [])
    columns = ["chosen_ids", "rejected_ids"]
    tuned = log_probabilities(config, directory, dtype, test, columns, tuned=True)
    base = log_probabilities(config, directory, dtype, test, columns, tuned=False)
    lengths = [sum(map(len, test[f"{name}_ids"][:])) for name in ("chosen", "rejected")]
    of_base, of_tuned = ((each[:, 0] > each[:, 1]).astype(float) for each in (base, tuned))
    figures = RowFigures("preferenceAccuracy", of_base, of_tuned)
    samples = [
        Sample(
            prompt=test["prompt"][row],
            reference=test["reference"][row],
            base=_preferred(base[row]),
            tuned=_preferred(tuned[row]),
            gain=float(figures.gains()[row]),
        )
        for row in telling_rows(figures, len(test), SAMPLES)
    ]
    return Evaluated(compare_pairs(base, tuned), _notes(*lengths), samples, figures=[figures])


def compare_pairs(base: np.ndarray, tuned: np.ndarray) -> EvaluationSummary:
    """The scores, the preference first.

    Args:
        base, tuned: log-probabilities of the better and the worse answer, shape [rows, 2], at least one row.
    """
    of_base, of_tuned = base[:, 0] > base[:, 1], tuned[:, 0] > tuned[:, 1]
    gained = tuned - base
    preference = Score(
        metric="preferenceAccuracy",
        higher_is_better=True,
        samples=len(base),
        base=proportion(of_base),
        tuned=proportion(of_tuned),
        improvement=paired_difference(of_base, of_tuned),
    )
    return EvaluationSummary(scores=[preference, against_chance("rewardAccuracy", gained[:, 0] > gained[:, 1])])


def evaluate_rated(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", test: "Dataset", directory: Path, dtype: torch.dtype
) -> Evaluated:
    """Score the exported model by what rated answers gained; arguments as in `scores.answers.evaluate`."""
    if not len(test):
        return Evaluated(EvaluationSummary(scores=[]), [NO_ROWS], [])
    columns = ["completion_ids"]
    tuned = log_probabilities(config, directory, dtype, test, columns, tuned=True)[:, 0]
    base = log_probabilities(config, directory, dtype, test, columns, tuned=False)[:, 0]
    good = np.array(test["label"][:], dtype=bool)
    samples = [
        Sample(
            prompt=prompt,
            reference=f"{RATED[int(label)]}: {reference}",
            base=f"log p {of_base:.3f}",
            tuned=f"log p {of_tuned:.3f}",
        )
        for prompt, reference, label, of_base, of_tuned in zip(
            test["prompt"][:SAMPLES], test["reference"][:SAMPLES], good, base, tuned, strict=False
        )
    ]
    evaluation, notes = compare_rated(good, tuned - base)
    return Evaluated(evaluation, notes, samples)


def compare_rated(good: np.ndarray, gained: np.ndarray) -> tuple[EvaluationSummary, list[str]]:
    """The score, and notes on it in sentences.

    Args:
        good: whether each answer was rated good, shape [rows].
        gained: what its log-probability gained, shape [rows].
    """
    if good.all() or not good.any():
        return EvaluationSummary(scores=[]), ["The test rows all have the same rating, so nothing was measured."]
    tuned = bootstrap(lambda rows: area_under_curve(good, gained, rows), len(good))
    score = Score(
        metric="rewardAUC",
        higher_is_better=True,
        samples=len(good),
        base=Interval(value=CHANCE, lower=CHANCE, upper=CHANCE),
        tuned=tuned,
        improvement=tuned.shifted(-CHANCE),
    )
    notes = [
        "rewardAUC: how often training raised the probability of a good answer more than that of a bad one. The base "
        "is chance: exactly 0.5, without an interval."
    ]
    if tuned.lower == tuned.upper:
        notes.append(f"{_WITHOUT_WIDTH.get(tuned.value, _ALIKE)}, so the bootstrap interval has no width.")
    return EvaluationSummary(scores=[score]), notes


def area_under_curve(good: np.ndarray, figures: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of each sample, the share of pairs of a good and a bad row whose good one has the higher figure; ties count half.

    Args:
        good: booleans, shape [all rows].
        figures: shape [all rows].
        rows: indices of each sample's rows, shape [samples, rows].

    Returns:
        Shape [samples]; 0.5 for a sample whose rows are all good or all bad.
    """
    # By rank, in memory of the samples' own size: a matrix of all pairs of many rows would not fit.
    values, rank = np.unique(figures, return_inverse=True)
    samples, ranks = len(rows), len(values)
    place = (rank + good * ranks)[rows] + np.arange(samples)[:, None] * (2 * ranks)
    times = np.bincount(place.ravel(), minlength=samples * 2 * ranks).reshape(samples, 2, ranks).astype(float)
    of_bad, of_good = times[:, 0], times[:, 1]
    pairs = of_good.sum(axis=1) * of_bad.sum(axis=1)
    won = (of_good * (of_bad.cumsum(axis=1) - of_bad / 2)).sum(axis=1)
    return np.asarray(np.divide(won, pairs, out=np.full(samples, CHANCE), where=pairs > 0))


def log_probabilities(
    config: RunConfig, directory: Path, dtype: torch.dtype, rows: "Dataset", columns: list[str], *, tuned: bool
) -> np.ndarray:
    """Of each row, log p of the answers in some columns after its prompt, in nats, summed over an answer's tokens.

    Args:
        config, directory, dtype: as in `scores.answers.evaluate`.
        rows: with `prompt_ids` and the columns.
        columns: the answers' columns.
        tuned: whether under the exported model, or under its base.

    Returns:
        Shape [rows, columns].
    """
    from transformers import AutoModelForCausalLM

    if tuned:
        model = METHODS[config.method.type].load(config, CHAT, directory, dtype)
    else:
        model = load_model(AutoModelForCausalLM, config.paths.model, dtype=dtype, **division())
    model = for_inference(model)
    tokenizer = load_tokenizer(directory)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    prompts, sums = rows["prompt_ids"][:], []
    for column in columns:
        answers = rows[column][:]
        inputs = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        labels = [[IGNORE_INDEX] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
        with torch.inference_mode():
            each = likelihoods(model, inputs, labels, pad or 0, f"{'tuned' if tuned else 'base'}: {column}")
        sums.append([total for total, _ in each])
    return np.array(sums).T


def _preferred(pair: np.ndarray) -> str:
    better, worse = (float(figure) for figure in pair)
    return f"{'chosen' if better > worse else 'rejected'}: log p {better:.3f} against {worse:.3f}"


def _notes(chosen: int, rejected: int) -> list[str]:
    notes = [
        "preferenceAccuracy: how often the better answer is the more probable one. rewardAccuracy: how often training "
        "raised its probability more than that of the worse one; its base is chance: exactly 0.5, without an interval."
    ]
    longer = max(chosen, rejected) / max(1, min(chosen, rejected))
    if longer > _UNEVEN:
        which = "better" if chosen > rejected else "worse"
        notes.append(
            f"The {which} answers are {longer:.1f} times as long as the others, and longer answers are less probable: "
            "use rewardAccuracy, in which the length cancels out."
        )
    return notes
