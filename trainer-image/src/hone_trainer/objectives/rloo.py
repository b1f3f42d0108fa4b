"""RLOO: answers that are rewarded more than the others to the same prompt are made likelier, by TRL's RLOOTrainer.

The loss of an answer (A. Ahmadian et al., Back to Basics, arXiv 2402.14740, equation 8, clipped as PPO's), with ratio
its probability over that when it was drawn, and ref the model before training:

    -min(ratio · A, clip(ratio, 0.8, 1.2) · A)
    A = R - mean of R over the other answers to the prompt, R = reward - beta · log(p / p_ref)
"""

from trl import RLOOConfig, RLOOTrainer

from hone_trainer.objectives.generation import WritingMixin
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.rewarded import build_rewarded


class _Trainer(WritingMixin, RLOOTrainer):
    """TRL's trainer with Hone's additions."""


def build(inputs: Inputs) -> RLOOTrainer:
    """The trainer for prepared rows with `written` and `references`."""
    return build_rewarded(_Trainer, RLOOConfig, inputs)
