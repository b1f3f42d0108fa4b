"""The reward functions: the sources of the user's own ones, and all of them in the form of the RunConfig."""

from hone.api.finetunejob import RewardFunction
from hone.contract import rewards as contract
from hone.contract.objects import ConfigMapKey
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.source import Dependency, Source
from hone.core.observed import Ref
from hone.core.podspec import ConfigMapMount

DIRECTORY = "/mnt/rewards"
_FILE = "reward.py"


def functions(run: Run) -> list[RewardFunction]:
    """The functions of the spec."""
    return (run.spec.reward.functions if run.spec.reward else None) or []


def reward_sources(run: Run) -> list[Source]:
    """The user's own functions, each in a separate directory."""
    return [
        _source(index, function.config_map)
        for index, function in enumerate(functions(run))
        if function.config_map is not None
    ]


def _source(index: int, config_map: ConfigMapKey) -> Source:
    directory, ref = f"{DIRECTORY}/{index}", Ref("v1", "ConfigMap", config_map.name)
    return Source(
        path=f"{directory}/{_FILE}",
        mounts=(ConfigMapMount(config_map.name, config_map.key, directory, _FILE),),
        dependencies=(Dependency(f"spec.reward.functions[{index}].configMap", ref, config_map.key),),
        prepare_only=True,
    )


def rewards(run: Run, directory: str) -> contract.Rewards | None:
    """The functions in the form of the RunConfig; None if the objective has no rewards.

    Args:
        run: the run.
        directory: the run's own on the workspace, where copies of the user's code are cached.
    """
    if run.spec.reward is None:
        return None
    copies = f"{directory}/rewards"
    return contract.Rewards(functions=[_function(n, each, copies) for n, each in enumerate(functions(run))])


def _function(index: int, function: RewardFunction, copies: str) -> contract.RewardFunction:
    if function.config_map is None:
        return contract.RewardFunction(name=function.name, pattern=function.pattern, weight=function.weight)
    source = f"{function.config_map.name}/{function.config_map.key}"
    return contract.RewardFunction(
        mounted=f"{DIRECTORY}/{index}/{_FILE}",
        file=f"{copies}/{source}",
        source=source,
        function=function.function or contract.RewardFunction().function,
        weight=function.weight,
    )
