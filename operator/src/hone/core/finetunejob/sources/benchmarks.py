"""The benchmarks: what prepare, which checks their rows, and finish, which scores them, mount."""

from hone.contract.benchmarks import Benchmark
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.source import Dependency, Source
from hone.core.observed import Ref
from hone.core.ownership import claim_ref
from hone.core.podspec import ClaimMount, ConfigMapMount


def benchmark_sources(run: Run) -> list[Source]:
    """The rows of each, at `/mnt/benchmarks/<name>`."""
    return [_source(index, each) for index, each in enumerate(run.evaluation.benchmarks or [])]


def _source(index: int, benchmark: Benchmark) -> Source:
    field, directory = f"spec.evaluation.benchmarks[{index}]", benchmark.directory
    if benchmark.claim is not None:
        return Source(
            path=benchmark.path,
            mounts=(ClaimMount(benchmark.claim.name, directory),),
            dependencies=(Dependency(f"{field}.claim.name", claim_ref(benchmark.claim.name)),),
        )
    if benchmark.config_map is None:
        raise ValueError(f"{field} names no source")  # the CRD refuses it
    name, key = benchmark.config_map.name, benchmark.config_map.key
    return Source(
        path=benchmark.path,
        mounts=(ConfigMapMount(name, key, directory, key),),
        dependencies=(Dependency(f"{field}.configMap", Ref("v1", "ConfigMap", name), key),),
    )
