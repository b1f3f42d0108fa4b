"""Which GPUs a run will get, by the labels that NVIDIA's GPU feature discovery gives to nodes.

They are recorded in status before the first pod exists: the RunConfig is rendered from what was read of the status.
"""

import re
from collections.abc import Iterable

from hone.api.finetunejob_status import GpuStatus
from hone.core.finetunejob.run import Run
from hone.core.nodes import may_run
from hone.core.observed import Node, Observed

_CAPABILITY = "nvidia.com/gpu.compute"
_MIB = re.compile(r"[1-9][0-9]{0,8}")


def are_unknown(run: Run) -> bool:
    """Whether nodes have to be read: the run trains on GPUs, and its RunConfig is not rendered yet."""
    status = run.resource.get("status") or {}
    if run.fault or not run.compute.gpus_per_node or status.get("startTime"):
        return False
    return not status.get("runConfig") or status.get("preparedSpec") != run.spec_digest


def gpus_of_nodes(run: Run, observed: Observed) -> GpuStatus | None:
    """The GPUs of the nodes that trainer pods may run on: of several kinds, the one with the least memory.

    None where no node says so, or the operator may not read them.
    """
    compute, resource = run.compute, run.compute.gpu_resource
    nodes = [
        node
        for node in observed.nodes or ()
        if may_run(node, compute.pod, resource, compute.gpus_per_node) and _memory(node, resource)
    ]
    if not (compute.gpus_per_node and nodes):
        return None
    ordered = sorted(nodes, key=lambda node: (_memory(node, resource), node.name))
    least, most = (_memory(node, resource) for node in (ordered[0], ordered[-1]))
    return GpuStatus(
        product=ordered[0].labels.get(f"{resource}.product"),
        memory=f"{least}Mi",
        largest_memory=f"{most}Mi" if most > least else None,
        compute_capability=_least_capability(nodes),
        nodes=len(nodes),
    )


def _memory(node: Node, resource: str) -> int:
    """MiB of one GPU, or of one part of a GPU that is a resource of its own, as by MIG; 0: no label shows it."""
    label = node.labels.get(f"{resource}.memory", "")
    return int(label) if _MIB.fullmatch(label) else 0


def _least_capability(nodes: Iterable[Node]) -> str | None:
    """The lowest compute capability; None unless all nodes have one."""
    labels = [tuple(node.labels.get(f"{_CAPABILITY}.{part}", "") for part in ("major", "minor")) for node in nodes]
    if not all(part.isascii() and part.isdigit() and len(part) <= 2 for label in labels for part in label):
        return None
    major, minor = min((int(major), int(minor)) for major, minor in labels)
    return f"{major}.{minor}"
