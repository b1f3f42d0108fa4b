"""The user's own scorers: what prepare, which checks them, and finish, which runs them, mount."""

from hone.contract.scorers import FILE, Scorer
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.source import Dependency, Source
from hone.core.observed import Ref
from hone.core.podspec import ConfigMapMount


def scorer_sources(run: Run) -> list[Source]:
    """The file of each, at `/mnt/scorers/<name>`."""
    return [_source(index, each) for index, each in enumerate(run.evaluation.scorers or [])]


def _source(index: int, scorer: Scorer) -> Source:
    name, key = scorer.config_map.name, scorer.config_map.key
    return Source(
        path=f"{scorer.directory}/{FILE}",
        mounts=(ConfigMapMount(name, key, scorer.directory, FILE),),
        dependencies=(Dependency(f"spec.evaluation.scorers[{index}].configMap", Ref("v1", "ConfigMap", name), key),),
    )
