"""Resources of the pods that load the model: as requested in the spec, or defaults for GPUs or the CPU."""

from typing import Any

from hone.contract.runconfig import HOST_MEMORY_PER_GPU
from hone.core.finetunejob.run import Run
from hone.core.podspec import resources

GIB = 2**30


def compute_resources(
    run: Run, gpus: int, ranks: int, limit_ranks: int | None = None, least_memory: int = 0
) -> dict[str, Any]:
    """Resources of one pod.

    Args:
        run: the run.
        gpus: its GPUs.
        ranks: its processes.
        limit_ranks: processes for which its default memory limit is enough; None: `ranks`.
        least_memory: bytes that it requests at least, and that its limit allows, where the spec mentions no memory.
    """
    compute = run.compute
    # On GPUs: enough to feed each one, and to hold the weights once while they are loaded; at most what activations
    # that are offloaded to the host take.
    cpu, memory, most = (4, 16, HOST_MEMORY_PER_GPU // GIB) if compute.gpus_per_node else (1, 2, 8)
    least = -(-least_memory // GIB)
    defaults = {"cpu": str(cpu * ranks), "memory": f"{max(memory * ranks, least)}Gi"}
    limit = max(most * (limit_ranks or ranks), least)
    return resources(compute.resources, defaults, gpus, compute.gpu_resource, f"{limit}Gi")
