"""The user's own reward functions: where the pods find them, and what they are told of all functions."""

from hone.api.finetunejob import ConfigMapKey, RewardFunction
from hone.contract import rewards as contract
from hone.core.finetunejob.run import Run
from hone.core.podspec import ConfigMapMount, Mount

DIRECTORY = "/mnt/rewards"


def functions(run: Run) -> list[RewardFunction]:
    """The functions of the spec."""
    return (run.spec.reward.functions if run.spec.reward else None) or []


def sources(run: Run) -> dict[str, ConfigMapKey]:
    """The ConfigMaps with functions of the user's own, by the field that names them."""
    return {
        f"spec.reward.functions[{index}].configMap": function.config_map
        for index, function in enumerate(functions(run))
        if function.config_map
    }


def reward_mounts(run: Run) -> list[Mount]:
    """Mounts of these in the prepare pod, each in a directory of its own."""
    return [
        ConfigMapMount(function.config_map.name, function.config_map.key, f"{DIRECTORY}/{index}", _FILE)
        for index, function in enumerate(functions(run))
        if function.config_map
    ]


def told(run: Run, directory: str) -> contract.Rewards | None:
    """The functions as the RunConfig has them; None where the objective has no rewards.

    Args:
        run: the run.
        directory: the run's own on the workspace, where copies of the user's code are kept.
    """
    if run.spec.reward is None:
        return None
    told = [_told(index, function, f"{directory}/rewards") for index, function in enumerate(functions(run))]
    return contract.Rewards(functions=told)


_FILE = "reward.py"


def _told(index: int, function: RewardFunction, kept: str) -> contract.RewardFunction:
    if function.config_map is None:
        return contract.RewardFunction(name=function.name, pattern=function.pattern, weight=function.weight)
    source = f"{function.config_map.name}/{function.config_map.key}"
    return contract.RewardFunction(
        mounted=f"{DIRECTORY}/{index}/{_FILE}",
        file=f"{kept}/{source}",
        source=source,
        function=function.function or contract.RewardFunction().function,
        weight=function.weight,
    )
