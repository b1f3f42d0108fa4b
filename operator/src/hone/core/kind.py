"""What the runtime needs to know of a kind. It is generic: everything that differs between the kinds is in here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from hone.core.observed import Object, Observed, Pod, Ref
from hone.core.plan import Plan
from hone.core.settings import Settings

Fetched = Mapping[Ref, Object | None]
"""What has been read so far: each object by its Ref, None where it does not exist."""


class ProgressTarget(NamedTuple):
    """The pod to ask for `http://<pod_ip>:9400/progress`."""

    pod_uid: str
    pod_ip: str


@dataclass(frozen=True)
class Kind:
    """A kind that the operator reconciles.

    One look at a resource is: stop if `idle`; GET what `refs` names, again with what was fetched until it names
    nothing new; then LIST the pods with label `hone.dev/uid` (after the GETs, so that a Job that is Complete is never
    seen with pods from before its end), and add the remembered ones that are gone; ask `progress_target` for its
    progress, at most every `settings.progress_seconds`, otherwise pass the last reading of that pod; `reconcile`;
    execute the Plan.

    All of it is pure, and none of it raises on a resource that passed its CRD.

    Attributes:
        name: the kind, such as `FineTuneJob`.
        plural: its plural in URLs.
        api_version: its group and version.
        refs: the objects to GET, the fetched ones included, given the resource, what was fetched, and the settings.
        reconcile: what to do, given the resource, what was observed, the time (with its zone), and the settings.
        progress_target: the pod to ask for progress, or None.
        idle: whether nothing is due, so that neither a GET nor a LIST is worth its cost; an idle resource is looked
            at again when it changes.
        follows: resources of ours that this one waits for; their events wake it.
        refused: the Plan after the API server refused a write of a Plan for good (403, 422), given the resource, that
            Plan, `<kind>/<name>` of what was to be written, the server's words and the time. It says so in status.
    """

    name: str
    plural: str
    api_version: str
    refs: Callable[[Object, Fetched, Settings], tuple[Ref, ...]]
    reconcile: Callable[[Object, Observed, datetime, Settings], Plan]
    progress_target: Callable[[Object, tuple[Pod, ...]], ProgressTarget | None]
    idle: Callable[[Object], bool]
    follows: Callable[[Object], tuple[Ref, ...]]
    refused: Callable[[Object, Plan, str, str, datetime], Plan]
