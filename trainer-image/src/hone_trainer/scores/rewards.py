"""How models that learned from rewards are scored: what base and tuned model's answers to held-out prompts are worth.

reward        mean over the rows of the weighted sum of all rewards
the rewards   each by itself, unweighted, where there are several

The answers are the likeliest ones (greedy), so that nothing is left to chance; training draws them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.contract.report import Sample
from hone.contract.results import EvaluationSummary
from hone.contract.runconfig import RunConfig
from hone_trainer.data.prompts import load_prompt, load_reference
from hone_trainer.protocol.errors import clip
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.rewards.load import Reward, load_rewards
from hone_trainer.scores import rows as scoring
from hone_trainer.scores.answers import both, most_seconds
from hone_trainer.scores.evaluated import SAMPLES, Evaluated
from hone_trainer.scores.figures import RowFigures, score
from hone_trainer.scores.pairs import NO_ROWS

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from hone_trainer.data.prepared import Prepared

REWARD = "reward"
_NAME = 64
_ROWS = 32
"""Answers to a call of a reward: for all test rows at once, the time limit of the user's code would be short."""


def evaluate(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", test: "Dataset", directory: Path, dtype: "torch.dtype"
) -> Evaluated:
    """Score the exported model against its base; arguments as in `scores.answers.evaluate`."""
    if not len(test):
        return Evaluated(EvaluationSummary(scores=[]), [NO_ROWS], [])
    limit = planned.plan.max_completion_length or config.evaluation.max_new_tokens
    # First, so that what cannot be loaded is reported at once. A reward model waits in the host's memory meanwhile,
    # as it does when training begins.
    rewards = load_rewards(config, _ROWS, dtype)
    base, tuned, test = both(config, planned, test, directory, dtype, scoring.answer_rows, limit, most_seconds(config))
    of_base, of_tuned = (figures(rewards, test, answers) for answers in (base.answers, tuned.answers))
    evaluation, notes, by_metric = compare(rewards, of_base, of_tuned)
    samples = [
        Sample(prompt=prompt, reference=reference, base=one, tuned=other)
        for prompt, reference, one, other in list(
            zip(test["prompt"][:SAMPLES], test["reference"][:SAMPLES], base.answers, tuned.answers, strict=False)
        )
    ]
    return Evaluated(evaluation, notes, samples, figures=by_metric, rows=test)


def figures(rewards: list[Reward], rows: "Dataset", answers: list[str]) -> np.ndarray:
    """What each answer is worth by each reward.

    Args:
        rewards: of the run.
        rows: prepared rows with `written` and `references`.
        answers: one to each.

    Returns:
        Shape [rows, rewards]; NaN where a reward does not apply.
    """
    prompts = [load_prompt(written) for written in rows["written"][:]]
    references = [load_reference(each) for each in rows["references"][:]]
    completions: list[Any] = [
        answer if isinstance(prompt, str) else [{"role": "assistant", "content": answer}]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    by_reward = [
        [
            figure
            for start in range(0, len(answers), _ROWS)
            for figure in reward.call(
                prompts=prompts[start : start + _ROWS],
                completions=completions[start : start + _ROWS],
                reference=references[start : start + _ROWS],
            )
        ]
        for reward in rewards
    ]
    return np.array(by_reward, dtype=float).reshape(len(rewards), len(answers)).T


def compare(
    rewards: list[Reward], base: np.ndarray, tuned: np.ndarray
) -> tuple[EvaluationSummary, list[str], list[RowFigures]]:
    """The scores, the weighted sum first; notes on them in sentences; and the figures that they are of.

    Args:
        rewards: of the run.
        base, tuned: of the same rows, as `figures` gives them.
    """
    weights = np.array([reward.weight for reward in rewards])
    of_base, of_tuned = _sum(base, weights), _sum(tuned, weights)
    columns = [(REWARD, of_base, of_tuned)]
    if len(rewards) > 1:
        columns += [(clip(one.label, _NAME), base[:, i], tuned[:, i]) for i, one in enumerate(rewards)]
    by_metric = [RowFigures(*column) for column in columns]
    scores = [one for each in by_metric if (one := score(each))]
    parts = " + ".join(f"{reward.weight:g} · {reward.label}" for reward in rewards)
    notes = [f"reward: {parts}, of the greedy answer to each prompt."]
    if left := int((np.isnan(of_base) | np.isnan(of_tuned)).sum()):
        notes.append(
            f"{left} of {len(base)} rows are not counted: no reward applies to the base's or the tuned answer."
        )
    return EvaluationSummary(scores=scores), notes, by_metric


def _sum(each: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted sum over those that apply, as TRL makes it; NaN where none does."""
    return np.where(np.isnan(each).all(axis=1), np.nan, np.nansum(each * weights, axis=1))
