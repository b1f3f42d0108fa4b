"""A Plan: all effects of a reconcile, as data. The runtime executes it in the order of the fields."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hone.core.observed import Object, Ref


class EventType(StrEnum):
    """Kubernetes' two types of Event."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event on the resource; created on transitions only."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True)
class Apply:
    """A server-side apply.

    Attributes:
        body: the fields that we own; apiVersion, kind and metadata.name included.
        field_manager: who owns them; ownership is added to a foreign object under a name of its own.
    """

    body: Object
    field_manager: str = "hone"


@dataclass(frozen=True)
class Delete:
    """A deletion in the background.

    Attributes:
        ref: what to delete.
        uid: precondition, so that an object re-created under the name is left alone.
    """

    ref: Ref
    uid: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order.

    Attributes:
        rehearse: objects that later Plans create. The API server is asked in a dry run whether it would accept them.
        create: objects to create, never to change. One that exists already is left as it is. An empty text in
            `stringData` of a Secret stands for a random key: the Plan has none.
        apply: objects to apply by server-side apply.
        delete: objects to delete.
        status: the whole new status, or None to leave it; written with the resourceVersion that was read.
        events: Events to record, after the status is written.
        requeue_after: seconds until the next reconcile, or None to wait for an event or the resync.
    """

    rehearse: tuple[Object, ...] = ()
    create: tuple[Object, ...] = ()
    apply: tuple[Apply, ...] = ()
    delete: tuple[Delete, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
