"""What the runtime needs to know of a kind. It is generic: everything that differs between the kinds is in here."""

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
    """The pod to ask for `http://<pod_ip>:9400/progress`."""

    pod_uid: str
    pod_ip: str


@dataclass(frozen=True)
class Kind(Generic[S]):
    """A kind that the operator reconciles.

    One reconcile of a resource is: stop if `idle`; make a `subject` of it; GET what `refs` names, again with what was
    fetched until it names nothing new; then LIST the pods with label `hone.dev/uid` (after the GETs, so that a Job that
    is Complete is never seen with pods from before its end), and add the remembered ones that are gone; ask
    `progress_target` for its progress, at most every `settings.progress_seconds`, in between pass the last reading of
    that pod; `reconcile`; execute the Plan.

    All of it is pure, and none of it raises on a resource that passed its CRD.

    Attributes:
        name: the kind, such as `FineTuneJob`.
        plural: its plural in URLs.
        api_version: its group and version.
        subject: the resource as decisions see it, given the operator's settings: parsed once per reconcile.
        children: the types of objects that it makes.
        refs: the objects to GET, the fetched ones included, given the subject and what was fetched.
        reconcile: what to do, given the subject, what was observed, and the time (with its zone).
        progress_target: the pod to ask for progress, or None.
        idle: whether nothing is due, so that neither a GET nor a LIST is worth its cost; an idle resource is
            reconciled again when it changes.
        follows: resources of ours that this one waits for; their events wake it.
        refused: the Plan after the API server refused a write of a Plan for good (403, 422), given the resource, that
            Plan, `<kind>/<name>` of what was to be written, the server's words and the time. It says so in status.
    """

    name: str
    plural: str
    api_version: str
    subject: Callable[[Object, Settings], S]
    children: tuple[ChildType, ...]
    refs: Callable[[S, Fetched], tuple[Ref, ...]]
    reconcile: Callable[[S, Observed, datetime], Plan]
    progress_target: Callable[[Object, tuple[Pod, ...]], ProgressTarget | None]
    idle: Callable[[Object], bool]
    follows: Callable[[Object], tuple[Ref, ...]]
    refused: Callable[[Object, Plan, str, str, datetime], Plan]


AnyKind = Kind[Any]
"""A kind of which nothing more is known."""
