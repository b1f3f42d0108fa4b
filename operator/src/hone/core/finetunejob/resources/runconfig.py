"""The RunConfig of a run, and the immutable ConfigMap that carries it."""

from hone.api.finetunejob import DataSource, HeldOut, MergePolicy
from hone.contract.runconfig import RUN_CONFIG_PATH, DataPaths, JobIdentity, Paths, RunConfig, Topology
from hone.core import names
from hone.core.children import metadata
from hone.core.finetunejob.resources import rewards
from hone.core.finetunejob.resources.models import WORKSPACE_DIRECTORY, merges, model_name, model_paths
from hone.core.finetunejob.run import Run, Step
from hone.core.observed import Object
from hone.core.podspec import ClaimMount, ConfigMapMount, Mount
from hone.core.quantity import as_int

CONFIG_DIRECTORY, CONFIG_FILE = RUN_CONFIG_PATH.rsplit("/", 1)
DATA_DIRECTORY = "/mnt/data"
OUTPUT_DIRECTORY = "/mnt/output"
DEFAULT_HELD_OUT = 0.1
"""Share of the training rows held out for a split that the spec does not name."""

DEFAULT_OUTPUT_SIZE = "20Gi"

Source = DataSource | HeldOut


def sources(run: Run) -> dict[str, Source]:
    """The data sources of the spec, by split."""
    dataset = run.spec.dataset
    found: dict[str, Source | None] = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {split: source for split, source in found.items() if source is not None}


def data_mounts(run: Run) -> list[Mount]:
    """Mounts of the data, which prepare alone reads: `/mnt/data/<split>`."""
    mounts: list[Mount] = []
    for split, source in sources(run).items():
        path = f"{DATA_DIRECTORY}/{split}"
        if source.claim:
            mounts.append(ClaimMount(source.claim.name, path))
        elif source.config_map:
            key = source.config_map.key
            mounts.append(ConfigMapMount(source.config_map.name, key, path, key))
    return mounts


def _path(split: str, source: Source | None) -> str | None:
    if source is None:
        return None
    if source.claim:
        return f"{DATA_DIRECTORY}/{split}/{source.claim.path}"
    return f"{DATA_DIRECTORY}/{split}/{source.config_map.key}" if source.config_map else None


def _fraction(source: HeldOut | None) -> float:
    return source.fraction if source and source.fraction is not None else DEFAULT_HELD_OUT


def memory_per_process(run: Run) -> int | None:
    """Bytes that a rank may use: a GPU's memory, or its share of the pod's limit on the CPU; None where unknown."""
    compute = run.compute
    if compute.gpus_per_node:
        return as_int(compute.gpu_memory) if compute.gpu_memory else None
    limits = compute.resources.limits if compute.resources else None
    return as_int(limits["memory"]) // run.processes_per_node if limits and "memory" in limits else None


def run_config(run: Run) -> RunConfig:
    """What the run's pods are told."""
    dataset, compute = run.spec.dataset, run.compute
    train = _path("train", dataset.train)
    if train is None:
        raise ValueError("spec.dataset.train names no source")  # the CRD refuses it
    directory = f"{WORKSPACE_DIRECTORY}/{run.namespace}/{run.name}/{run.uid}"
    return RunConfig(
        job=JobIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
        model_name=model_name(run.spec.model),
        objective=run.spec.objective,
        method=run.method,
        hyperparameters=run.hyperparameters,
        data=DataPaths(
            train=train,
            validation=_path("validation", dataset.validation),
            test=_path("test", dataset.test),
            validation_fraction=_fraction(dataset.validation),
            test_fraction=_fraction(dataset.test),
            mounts=DATA_DIRECTORY,
            format=dataset.format,
            columns=dataset.columns,
            train_on=dataset.train_on,
            balance=dataset.balance,
            min_samples=dataset.min_samples,
            on_scarce_data=dataset.on_scarce_data,
        ),
        reward=rewards.told(run, directory),
        topology=Topology(
            nodes=compute.nodes,
            processes_per_node=run.processes_per_node,
            gpus_per_node=compute.gpus_per_node,
            zero_stage=compute.zero_stage,
            micro_batch_size=compute.micro_batch_size,
            memory_bytes=memory_per_process(run),
        ),
        checkpoint=run.checkpoint,
        evaluation=run.evaluation,
        paths=Paths(
            **model_paths(run),
            workspace=WORKSPACE_DIRECTORY,
            run=directory,
            output=OUTPUT_DIRECTORY,
        ),
        merges=merges(run),
        merge_output=_merges_output(run),
        output_bytes=as_int(run.output.size or DEFAULT_OUTPUT_SIZE),
    )


def _merges_output(run: Run) -> bool:
    """Whether an adapter is merged at the end.

    Auto: over a base that another job made. That base is a scratch copy where it was an adapter itself; else it lies on
    that job's claim, which whoever serves the adapter would have to keep, too.
    """
    asked = run.output.merge
    return asked == MergePolicy.ALWAYS or (asked == MergePolicy.AUTO and run.spec.model.job_ref is not None)


def config_map_name(run: Run) -> str:
    """The ConfigMap's name, which hashes its content: another content is another object."""
    return f"{run.base_name}-run-{names.digest(run_config(run).to_json(), length=8)}"


def config_map(run: Run, name: str) -> Object:
    """The immutable ConfigMap with the RunConfig."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run.resource, name, Step.PREPARE),
        "immutable": True,
        "data": {CONFIG_FILE: run_config(run).to_json()},
    }
