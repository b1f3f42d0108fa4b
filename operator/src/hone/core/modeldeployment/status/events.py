"""The Events of a ModelDeployment, from the difference between its old and its new status."""

from hone.api.modeldeployment import ModelDeploymentStatus
from hone.core.conditions import find
from hone.core.events import became_true, normal, warning
from hone.core.modeldeployment.selection import short
from hone.core.plan import Event

QUIET = (
    "CandidateStarting",
    "Analyzing",
    "CandidateRejected",
    "CanaryStep",
    "Inspecting",
    "Promoting",
    "RollingOut",
    "Terminating",
    "WaitingForJob",
)
"""Reasons of Reconciling that need no action."""


def events(old: ModelDeploymentStatus, new: ModelDeploymentStatus) -> tuple[Event, ...]:
    """What happened between the two."""
    happened: list[Event] = []
    if new.candidate and (old.candidate is None or old.candidate.revision != new.candidate.revision):
        happened.append(normal("RolloutStarted", f"revision {new.candidate.revision}, {short(new.candidate.digest)}"))
    if new.stable and (old.stable is None or old.stable.revision != new.stable.revision):
        happened.append(normal("RolledOut", f"revision {new.stable.revision}, {short(new.stable.digest)}"))
    known = old.rejected or []
    happened += [warning("CandidateRejected", each.message) for each in new.rejected or [] if each not in known]
    for kind in ("Reconciling", "Stalled"):
        condition = became_true(old.conditions, new.conditions, kind)
        if condition and condition.reason not in QUIET and not _was_shown(old, condition.reason):
            happened.append(warning(condition.reason, condition.message))
    before, after = find(old.conditions, "Progressing"), find(new.conditions, "Progressing")
    orphaned = after is not None and after.reason == "JobNotFound" and new.stable is not None
    if after and orphaned and (before is None or before.reason != after.reason):
        happened.append(normal(after.reason, after.message))
    return tuple(happened)


def _was_shown(old: ModelDeploymentStatus, reason: str) -> bool:
    """Whether either condition had the same reason before."""
    before = (find(old.conditions, kind) for kind in ("Reconciling", "Stalled"))
    return any(condition is not None and condition.reason == reason for condition in before)
