"""All rewards of a run, ready to be called by train and finish."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.contract.runconfig import RunConfig
from hone_trainer.rewards.checks import field_of
from hone_trainer.rewards.code import load_function
from hone_trainer.rewards.functions import Rewarding, named
from hone_trainer.rewards.model import LABEL, load_model

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reward:
    """A reward by its label, with its weight in the sum."""

    label: str
    weight: float
    call: Rewarding


def load_rewards(config: RunConfig, rows: int, dtype: "torch.dtype") -> list[Reward]:
    """What the run rewards: the model first, then the functions in the order of the spec.

    Labels that occur twice are numbered.

    Args:
        config: with `reward` and `paths.reward_model`.
        rows: how many answers a model reads at once.
        dtype: type in which a model computes.

    Raises:
        BadInput: the user's code cannot be loaded.
    """
    rewards: list[Reward] = []
    if config.paths.reward_model is not None:
        rewards.append(Reward(LABEL, 1.0, load_model(config.paths.reward_model, rows, dtype)))
    for index, function in enumerate(config.reward.functions if config.reward else []):
        load = named if function.name else load_function
        call = load(field_of(index), function)
        labels = [reward.label for reward in rewards]
        label = function.label if function.label not in labels else f"{function.label} {index + 1}"
        rewards.append(Reward(label, function.weight, call))
    return rewards
