"""Resources of the pods that load the model: as requested in the spec, or defaults for GPUs or the CPU."""

from typing import Any

from hone.core.finetunejob.run import Run
from hone.core.podspec import resources


def compute_resources(run: Run, gpus: int, ranks: int, limit_ranks: int | None = None) -> dict[str, Any]:
    """Resources of one pod.

    Args:
        run: the run.
        gpus: its GPUs.
        ranks: its processes.
        limit_ranks: processes for which its default memory limit is enough; None: `ranks`.
    """
    compute = run.compute
    # On GPUs: enough to feed each one, and to hold the weights once while they are loaded; at most what activations
    # that are offloaded to the host take.
    cpu, memory, most = (4, 16, 128) if compute.gpus_per_node else (1, 2, 8)
    defaults = {"cpu": str(cpu * ranks), "memory": f"{memory * ranks}Gi"}
    return resources(compute.resources, defaults, gpus, compute.gpu_resource, f"{most * (limit_ranks or ranks)}Gi")
