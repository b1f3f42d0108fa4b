"""What the runtime needs to know about a kind. The runtime is generic: all differences between the kinds are here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from hone.core.children import ChildType
from hone.core.observed import Object, Observed, Pod, Ref
from hone.core.plan import Plan
from hone.core.settings import Settings
from hone.core.subject import Subject

Fetched = Mapping[Ref, Object | None]
"""What has been read so far: each object by its Ref, None where it does not exist."""

S = TypeVar("S", bound=Subject)


class ProgressTarget(NamedTuple):
    """The pod whose `http://<pod_ip>:9400/progress` is queried."""

    pod_uid: str
    pod_ip: str


@dataclass(frozen=True)
class Kind(Generic[S]):
    """A kind that the operator reconciles.

    One reconcile of a resource: stop if `idle`; parse it into a `subject`; read the objects that `refs` names, and call
    `refs` again with the result until it names nothing new; then its pods, with label `hone.dev/uid`, and remembered
    ones that are deleted; take the last reading of the progress of `progress_target`, which is queried in the
    background every `settings.progress_seconds` (a reading that differs from the last one triggers a reconcile); call
    `reconcile`; execute the Plan.

    What is read comes from the watches, which may lag. Where `is_drastic` says so of the Plan, everything is read again
    from the API server, and the Plan is made from that.

    All functions are pure, and none raises on a resource that its CRD accepts.

    Attributes:
        name: the kind, such as `FineTuneJob`.
        plural: its plural in URLs.
        api_version: its group and version.
        subject: the resource as decisions see it, given the operator's settings: parsed once per reconcile.
        children: the types of objects that it creates.
        refs: the objects to read, the fetched ones included, given the subject and what was fetched.
        may_lack: whether an object that no watch has shown may count as absent, because a Plan would only create it,
            which meets whatever exists under its name.
        reconcile: what to do, given the subject, what was observed, and the time (with its zone).
        reads_nodes: whether to read the nodes with GPUs as well, given the subject.
        reads_peers: whether to list the resources of this kind in the namespace as well, given the subject.
        progress_target: the pod to ask for progress, or None.
        is_drastic: whether a Plan would do harm if what was observed is not what the API server has.
        idle: whether nothing is due, so that nothing is read; an idle resource is reconciled again when it changes.
        follows: resources of ours that this one waits for; their events trigger its reconcile.
        refused: the Plan after the API server refused a write of a Plan for good (403, 422), given the resource, that
            Plan, `<kind>/<name>` of the refused object, the server's message and the time. It updates the status.
    """

    name: str
    plural: str
    api_version: str
    subject: Callable[[Object, Settings], S]
    children: tuple[ChildType, ...]
    refs: Callable[[S, Fetched], tuple[Ref, ...]]
    may_lack: Callable[[S, Ref], bool]
    reconcile: Callable[[S, Observed, datetime], Plan]
    reads_nodes: Callable[[S], bool]
    reads_peers: Callable[[S], bool]
    progress_target: Callable[[Object, tuple[Pod, ...]], ProgressTarget | None]
    is_drastic: Callable[[S, Observed, Plan], bool]
    idle: Callable[[Object], bool]
    follows: Callable[[Object], tuple[Ref, ...]]
    refused: Callable[[Object, Plan, str, str, datetime], Plan]


AnyKind = Kind[Any]
"""Any of the kinds."""
