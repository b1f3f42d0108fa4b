"""RLOO: answers that are rewarded more than the others to the same prompt are made likelier, by TRL's RLOOTrainer.

The loss of an answer (A. Ahmadian et al., Back to Basics, arXiv 2402.14740, equation 8, clipped as PPO's), with ratio
its probability over that when it was drawn, and ref the model before training:

    -min(ratio · A, clip(ratio, 0.8, 1.2) · A)
    A = R - mean of R over the other answers to the prompt, R = reward - beta · log(p / p_ref)
"""

from transformers import AutoModelForCausalLM
from trl import RLOOConfig, RLOOTrainer

from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.rewarded import callables, reward_arguments
from hone_trainer.objectives.trainer import made
from hone_trainer.objectives.writing import WritingMixin
from hone_trainer.rewards.load import load_rewards


class _Trainer(WritingMixin, RLOOTrainer):
    """TRL's trainer with Hone's additions."""


def build(inputs: Inputs) -> RLOOTrainer:
    """The trainer for prepared rows with `written` and `references`."""
    # Before the arguments, as `rewards.model.load_model` says.
    rewards = load_rewards(inputs.config, inputs.plan.micro_batch_size)
    arguments = RLOOConfig(**reward_arguments(inputs, rewards))
    return made(
        _Trainer,
        inputs,
        inputs.load_model(AutoModelForCausalLM),
        arguments,
        reward_funcs=callables(rewards),
        peft_config=inputs.peft_config,
    )
