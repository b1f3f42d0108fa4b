"""What GRPO and RLOO share: the model learns from the rewards of its own answers."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hone.contract.runconfig import RunConfig
from hone_trainer.models.architectures import CHAT
from hone_trainer.objectives.components import Components
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.on_policy import on_policy
from hone_trainer.rewards.checks import check_model

if TYPE_CHECKING:
    from hone_trainer.objectives.generation import OnPolicyMixin
    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.rewards.load import Reward
    from hone_trainer.training.rank_trainer import RankTrainer


def rewarded(trainer_class: "Callable[[], type[TrainerMixin]]", build: "Callable[[Inputs], RankTrainer]") -> Components:
    """The components of such an objective.

    Args:
        trainer_class, build: as in `Components`.
    """
    return on_policy(trainer_class, build, "rewards:evaluate", reward_model=_reward_model)


def _reward_model(config: RunConfig, chat: bool) -> int:
    directory = config.paths.reward_model
    return check_model(directory, chat=chat) if directory else 0


def build_rewarded(trainer: "type[OnPolicyMixin]", arguments: Callable[..., Any], inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `written` and `references`.

    Args:
        trainer: its class.
        arguments: the class of its arguments.
        inputs: what it is built from.
    """
    import torch

    from hone_trainer.objectives.generation import build_generating
    from hone_trainer.rewards.load import load_rewards

    # Before the arguments, as `rewards.model.load_model` says.
    dtype = getattr(torch, inputs.plan.half) if inputs.config.topology.gpus_per_node else torch.float32
    rewards = load_rewards(inputs.config, inputs.plan.micro_batch_size, dtype)
    configured = arguments(**reward_arguments(inputs, rewards))
    model = inputs.load_model(CHAT.model_class())
    return build_generating(
        trainer,
        inputs,
        model,
        configured,
        reward_funcs=callables(rewards),
        peft_config=inputs.adapter(model),
    )


def reward_arguments(inputs: Inputs, rewards: "list[Reward]") -> dict[str, Any]:
    """The arguments that GRPOConfig and RLOOConfig share, the general ones among them."""
    from hone_trainer.objectives.generation import on_policy_arguments

    plan = inputs.plan
    return {
        **on_policy_arguments(inputs),
        "num_generations": plan.generations,
        "beta": inputs.beta,
        "reward_weights": [reward.weight for reward in rewards],
        # One optimizer step per generation: none is cut by a checkpoint.
        "steps_per_generation": plan.gradient_accumulation_steps,
        "num_iterations": 1,
    }


def callables(rewards: "list[Reward]") -> list[Any]:
    """Rewards as TRL takes them: it calls them by their `__name__`."""
    functions = []
    for reward in rewards:
        # A name of its own for each: the same function may be there twice.
        call: Any = partial(reward.call)
        call.__name__ = reward.label
        functions.append(call)
    return functions
