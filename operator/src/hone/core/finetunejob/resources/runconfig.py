"""The RunConfig of a run, and the immutable ConfigMap that carries it."""

import functools

from hone.api.output import MergePolicy
from hone.contract.runconfig import RUN_CONFIG_PATH, DataPaths, JobIdentity, Paths, RunConfig, Topology
from hone.contract.settings import MAX_BAD_ROWS, Reasoning
from hone.core import names
from hone.core.children import metadata
from hone.core.finetunejob.run import PREPARE, WORKSPACE_DIRECTORY, Run
from hone.core.finetunejob.sources.data import DATA_DIRECTORY, chat_template, data_sources, held_out, parts
from hone.core.finetunejob.sources.models import model_name, model_sources
from hone.core.finetunejob.sources.rewards import rewards
from hone.core.finetunejob.steps import answer_server
from hone.core.finetunejob.steps.finish import OUTPUT_DIRECTORY
from hone.core.finetunejob.steps.train import TRAIN_STEP
from hone.core.observed import Object
from hone.core.quantity import as_int

CONFIG_DIRECTORY, CONFIG_FILE = RUN_CONFIG_PATH.rsplit("/", 1)
DEFAULT_OUTPUT_SIZE = "20Gi"


def memory_per_process(run: Run) -> int | None:
    """Bytes that a rank may use: a GPU's memory, or on the CPU its share of the pod's limit; None if unknown.

    The limit is that of the rendered pod, whether the spec sets it or it is the default.
    """
    compute = run.compute
    if compute.gpus_per_node:
        return run.gpu_memory_bytes
    limit = TRAIN_STEP.resources(run).get("limits", {}).get("memory")
    return as_int(limit) // run.processes_per_node if limit else None


def _host_memory(run: Run) -> int | None:
    """Bytes of a process on a GPU by the limit that the spec sets; None: none, or the CPU, where a process has no
    other memory."""
    compute = run.compute
    limits = compute.resources.limits if compute.resources else None
    if not (compute.gpus_per_node and limits and "memory" in limits):
        return None
    return as_int(str(limits["memory"])) // run.processes_per_node


def run_config(run: Run) -> RunConfig:
    """Everything that the run's pods need to know of it."""
    models, data = model_sources(run), data_sources(run)
    directory = f"{WORKSPACE_DIRECTORY}/{run.directory}"
    return RunConfig(
        job=JobIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
        model_name=model_name(run.spec.model),
        objective=run.spec.objective,
        method=run.method,
        hyperparameters=run.hyperparameters,
        data=_data(run),
        reward=rewards(run, directory),
        topology=_topology(run),
        checkpoint=run.checkpoint,
        evaluation=run.evaluation,
        paths=Paths(
            **{name: source.path for name, source in models.items()},
            workspace=WORKSPACE_DIRECTORY,
            run=directory,
            output=OUTPUT_DIRECTORY,
        ),
        materialize=[entry for source in (*data.values(), *models.values()) for entry in source.materialize],
        artifacts=[artifact for source in models.values() for artifact in source.artifacts],
        search=run.spec.search,
        merge_output=_is_merged(run),
        output_bytes=as_int(run.output.size or DEFAULT_OUTPUT_SIZE),
        answer_server=answer_server.configured(run),
        start_deadline_seconds=run.spec.start_deadline_seconds,
        hang_floor_seconds=run.spec.progress_deadline_seconds,
    )


def _is_merged(run: Run) -> bool:
    """Whether an adapter is merged at the end.

    Auto merges if the base is on no claim of the user's. A downloaded one is only on the workspace. One of another job
    is a temporary copy if it was an adapter itself; if not, it is on that job's claim, which would have to be kept for
    serving the adapter.
    """
    policy = run.output.merge
    return policy == MergePolicy.ALWAYS or (policy == MergePolicy.AUTO and run.spec.model.claim is None)


def _data(run: Run) -> DataPaths:
    dataset, sources = run.spec.dataset, data_sources(run)
    paths = {split: source.path for split, source in sources.items()}
    mixed = parts(run)
    train = mixed[0].path if mixed else paths.get("train")
    if train is None:
        raise ValueError("spec.dataset.train names no source")  # the CRD refuses it
    return DataPaths(
        train=train,
        sources=mixed,
        validation=paths.get("validation"),
        test=paths.get("test"),
        validation_fraction=held_out(dataset.validation),
        test_fraction=held_out(dataset.test),
        mounts=DATA_DIRECTORY,
        format=dataset.format,
        columns=dataset.columns,
        roles=dataset.roles,
        train_on=dataset.train_on,
        balance=dataset.balance,
        show_example=dataset.show_example or None,
        chat_template=chat_template(run),
        system_prompt=dataset.system_prompt,
        reasoning=dataset.reasoning if dataset.reasoning is Reasoning.DROP else None,
        split_by=dataset.split_by,
        max_bad_rows=dataset.max_bad_rows if dataset.max_bad_rows != MAX_BAD_ROWS else None,
        min_samples=dataset.min_samples,
        on_scarce_data=dataset.on_scarce_data,
    )


def _gpu_by_labels(run: Run) -> str | None:
    """Whose memory the plan counts on, in words; None where the spec says how much there is, or nothing does."""
    gpu = run.gpu
    if gpu is None or run.compute.gpu_memory:
        return None
    return (
        f"{gpu.product or run.compute.gpu_resource}, by the labels of {gpu.nodes} node{'' if gpu.nodes == 1 else 's'}"
    )


def _largest_memory(run: Run) -> int | None:
    """Bytes of the largest GPU that a rank may get, where it is known that some are larger than others."""
    largest = run.gpu.largest_memory if run.gpu and not run.compute.gpu_memory else None
    return as_int(largest) if largest else None


def _topology(run: Run) -> Topology:
    compute = run.compute
    return Topology(
        nodes=compute.nodes,
        processes_per_node=run.processes_per_node,
        gpus_per_node=compute.gpus_per_node,
        zero_stage=compute.zero_stage,
        micro_batch_size=compute.micro_batch_size,
        memory_bytes=memory_per_process(run),
        gpu_by_labels=_gpu_by_labels(run),
        largest_memory_bytes=_largest_memory(run),
        compute_capability=run.gpu.compute_capability if run.gpu else None,
        precision=compute.precision,
        offload_optimizer=compute.offload_optimizer,
        offload_param=compute.offload_param,
        host_memory_bytes=_host_memory(run),
    )


@functools.lru_cache(maxsize=64)
def rendered(run: Run) -> str:
    """The RunConfig as text. A reconcile needs it several times, and renders it once."""
    return run_config(run).to_json()


def config_map_name(run: Run) -> str:
    """The ConfigMap's name, which contains a hash of its content: new content is a new object."""
    return f"{run.base_name}-run-{names.digest(rendered(run), length=8)}"


def config_map(run: Run, name: str) -> Object:
    """The immutable ConfigMap with the RunConfig."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run.resource, name, PREPARE),
        "immutable": True,
        "data": {CONFIG_FILE: rendered(run)},
    }
