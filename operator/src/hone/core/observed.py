"""The input of a decision: the resource, its children and dependencies by name, its pods, its progress."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hone.contract.progress import Progress

Object = dict[str, Any]
"""A Kubernetes object as the API server returns it."""


@dataclass(frozen=True, order=True)
class Ref:
    """The name of an object in the resource's namespace.

    Attributes:
        api_version: such as `v1`, `batch/v1` or `hone.dev/v1alpha1`.
        kind: such as `Job`.
        name: the object's name.
    """

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True)
class Pod:
    """A pod of the resource.

    Attributes:
        raw: the object as it was last seen.
        gone: whether it has been deleted since; remembered because no other object records how it ended.
    """

    raw: Object
    gone: bool = False


@dataclass(frozen=True)
class ProgressReading:
    """What a prepare or trainer pod reported of its progress.

    Attributes:
        pod_uid: uid of the pod that was read.
        progress: its answer, or None if it could not be read.
        error: why it could not be read.
    """

    pod_uid: str
    progress: Progress | None = None
    error: str | None = None


@dataclass(frozen=True)
class Node:
    """A node of the cluster, as far as decisions read it.

    Attributes:
        name: its name.
        labels: its labels.
        taints: key, value and effect of those that keep pods away.
        allocatable: number of each resource that pods may have on it in all, such as nvidia.com/gpu.
        is_cordoned: whether it takes no new pods.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[tuple[str, str, str], ...] = ()
    allocatable: Mapping[str, int] = field(default_factory=dict)
    is_cordoned: bool = False


@dataclass(frozen=True)
class Observed:
    """Everything that a reconcile reads.

    Attributes:
        objects: what `refs` named; None where the object does not exist.
        pods: the resource's pods, by label `hone.dev/uid`.
        progress: the newest reading, where a pod was read (see `progress_target`).
        nodes: the nodes with GPUs, where they were read (see `reads_nodes`); None: not read, or not allowed to be.
        peers: all resources of the same kind in the namespace, where they were read (see `reads_peers`).
    """

    objects: Mapping[Ref, Object | None] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    progress: ProgressReading | None = None
    nodes: tuple[Node, ...] | None = None
    peers: tuple[Object, ...] | None = None

    def get(self, ref: Ref) -> Object | None:
        """The object of that name, or None.

        Raises:
            KeyError: if `refs` never named it, which is a bug.
        """
        return self.objects[ref]
