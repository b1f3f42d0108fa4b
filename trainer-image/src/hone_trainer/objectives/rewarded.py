"""What GRPO and RLOO share: the model learns from what its answers are worth."""

from functools import partial
from typing import Any

from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.writing import writing_arguments
from hone_trainer.rewards.load import Reward


def reward_arguments(inputs: Inputs, rewards: list[Reward]) -> dict[str, Any]:
    """The arguments that GRPOConfig and RLOOConfig share, the general ones among them."""
    plan = inputs.plan
    return {
        **writing_arguments(inputs),
        "num_generations": plan.generations,
        "beta": plan.beta,
        "reward_weights": [reward.weight for reward in rewards],
        # One optimizer step per generation: none is cut by a checkpoint.
        "steps_per_generation": plan.gradient_accumulation_steps,
        "num_iterations": 1,
    }


def callables(rewards: list[Reward]) -> list[Any]:
    """Rewards as TRL takes them: it calls them by their `__name__`."""
    found = []
    for reward in rewards:
        # A name of its own for each: the same function may be there twice.
        call = partial(reward.call)
        call.__name__ = reward.label  # type: ignore[attr-defined]
        found.append(call)
    return found
