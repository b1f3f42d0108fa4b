"""Scores of base and tuned model on the test split, each with its interval; `EVALUATIONS` tells how, by objective."""

from collections.abc import Callable

from hone.contract.settings import Objective
from hone_trainer.scores import answers, classes, divergences, pairs, preferences, rewards
from hone_trainer.scores.evaluated import Evaluated

EVALUATIONS: dict[Objective, Callable[..., Evaluated]] = {
    Objective.SFT: answers.evaluate,
    Objective.CLASSIFICATION: classes.evaluate,
    Objective.REWARD: pairs.evaluate,
    Objective.DPO: preferences.evaluate_pairs,
    Objective.GRPO: rewards.evaluate,
    Objective.RLOO: rewards.evaluate,
    Objective.DISTILLATION: divergences.evaluate,
    Objective.KTO: preferences.evaluate_rated,
    Objective.ORPO: preferences.evaluate_pairs,
}
