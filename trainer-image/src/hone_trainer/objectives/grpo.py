"""GRPO: answers with a higher reward than others to the same prompt become more probable, by TRL's GRPOTrainer.

The loss of an answer's token (Z. Shao et al., DeepSeekMath, arXiv 2402.03300, equations 3 and 4), with ratio the
token's probability over that when it was drawn, and ref the model before training:

    -min(ratio · A, clip(ratio, 0.8, 1.2) · A) + beta · (p_ref / p - log(p_ref / p) - 1)
    A = (reward - mean) / standard deviation, over the answers to the prompt

It is summed over the step's tokens and divided by their number (DAPO, arXiv 2503.14476), which is TRL's default.
"""

from typing import TYPE_CHECKING

from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.rewarded import build_rewarded, rewarded

if TYPE_CHECKING:
    from hone_trainer.objectives.generation import OnPolicyMixin
    from hone_trainer.training.rank_trainer import RankTrainer


def trainer_class() -> "type[OnPolicyMixin]":
    """TRL's trainer with Hone's additions."""
    from trl import GRPOTrainer

    from hone_trainer.objectives.generation import OnPolicyMixin

    class Trainer(OnPolicyMixin, GRPOTrainer):
        """TRL's trainer with Hone's additions."""

        corrects = True

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `written` and `references`."""
    from trl import GRPOConfig

    return build_rewarded(trainer_class(), GRPOConfig, inputs)


COMPONENTS = rewarded(trainer_class, build)
