"""RLOO: answers with a higher reward than others to the same prompt become more probable, by TRL's RLOOTrainer.

The loss of an answer (A. Ahmadian et al., Back to Basics, arXiv 2402.14740, equation 8, clipped as PPO's), with ratio
its probability over that when it was drawn, and ref the model before training:

    -min(ratio · A, clip(ratio, 0.8, 1.2) · A)
    A = R - mean of R over the other answers to the prompt, R = reward - beta · log(p / p_ref)
"""

from typing import TYPE_CHECKING

from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.rewarded import build_rewarded, rewarded

if TYPE_CHECKING:
    from hone_trainer.objectives.generation import OnPolicyMixin
    from hone_trainer.training.rank_trainer import RankTrainer


def trainer_class() -> "type[OnPolicyMixin]":
    """TRL's trainer with Hone's additions."""
    from trl import RLOOTrainer

    from hone_trainer.objectives.generation import OnPolicyMixin

    class Trainer(OnPolicyMixin, RLOOTrainer):
        """TRL's trainer with Hone's additions."""

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `written` and `references`."""
    from trl import RLOOConfig

    return build_rewarded(trainer_class(), RLOOConfig, inputs)


COMPONENTS = rewarded(trainer_class, build)
