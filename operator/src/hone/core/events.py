"""Shared parts of both kinds' Events, which follow from the difference between two statuses."""

from collections.abc import Sequence

from hone.api.meta import Condition
from hone.core import reported
from hone.core.conditions import TRUE, find
from hone.core.plan import Event, EventType

MAX_MESSAGE = 1000


def normal(reason: str, message: str) -> Event:
    """An Event of type Normal."""
    return Event(EventType.NORMAL, reason, reported.text(message, MAX_MESSAGE))


def warning(reason: str, message: str) -> Event:
    """An Event of type Warning."""
    return Event(EventType.WARNING, reason, reported.text(message, MAX_MESSAGE))


def became_true(old: Sequence[Condition], new: Sequence[Condition], kind: str) -> Condition | None:
    """The condition if it has become True, or is True for another reason than before."""
    before, after = find(old, kind), find(new, kind)
    if after is None or after.status != TRUE:
        return None
    same = before is not None and before.status == TRUE and before.reason == after.reason
    return None if same else after
