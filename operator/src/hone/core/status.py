"""Shared parts of both kinds' status: the conditions of a stopped resource, and whether the status has changed."""

from collections.abc import Sequence
from datetime import datetime

from hone.api.meta import Condition
from hone.contract.base import Model
from hone.core.conditions import Finding, kstatus, merge
from hone.core.observed import Object

CONFLICT_SECONDS = 60.0
"""How soon to check whether a foreign object was deleted: its events are not watched."""


def generation(resource: Object) -> int | None:
    """The generation of a resource's spec."""
    number: int | None = resource["metadata"].get("generation")
    return number


def unchanged(conditions: Sequence[Condition]) -> list[Finding]:
    """The current conditions, as findings."""
    return [Finding(each.type, each.status, each.reason, each.message) for each in conditions]


def stopped(
    resource: Object,
    old: Sequence[Condition],
    known: Sequence[Condition],
    state: str,
    reason: str,
    message: str,
    now: datetime,
) -> list[Condition]:
    """The conditions of a resource that cannot continue for now; what is known about it stays.

    Args:
        resource: the resource.
        old: its conditions as they were read.
        known: its conditions as they are known now.
        state: `Stalled` or `Reconciling`.
        reason: why.
        message: the same for people, with what to do.
        now: the time.
    """
    findings = kstatus(state, reason, message)
    types = {finding.type for finding in findings}
    rest = [finding for finding in unchanged(known) if finding.type not in types]
    return merge(old, [*rest, *findings], generation(resource), now)


def changed(resource: Object, new: Model) -> Object | None:
    """The new status, or None if it equals the old one."""
    status = new.to_dict()
    return None if status == (resource.get("status") or {}) else status
