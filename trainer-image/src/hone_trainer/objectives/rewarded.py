"""What GRPO and RLOO share: the model learns from what its answers are worth."""

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import AutoModelForCausalLM

from hone_trainer.objectives.generation import writing_arguments
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.trainer import Made, made
from hone_trainer.rewards.load import Reward, load_rewards


def build_rewarded(trainer: Callable[..., Made], arguments: Callable[..., Any], inputs: Inputs) -> Made:
    """The trainer for prepared rows with `written` and `references`.

    Args:
        trainer: its class.
        arguments: the class of its arguments.
        inputs: what it is built from.
    """
    # Before the arguments, as `rewards.model.load_model` says.
    rewards = load_rewards(inputs.config, inputs.plan.micro_batch_size)
    configured = arguments(**reward_arguments(inputs, rewards))
    return made(
        trainer,
        inputs,
        inputs.load_model(AutoModelForCausalLM),
        configured,
        reward_funcs=callables(rewards),
        peft_config=inputs.peft_config,
    )


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
