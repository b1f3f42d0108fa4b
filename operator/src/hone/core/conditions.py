"""Conditions: observations in the form of metav1.Condition, and the three that kstatus reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hone.api.meta import Condition, ConditionStatus
from hone.core import reported
from hone.core.times import rfc3339

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
MAX_MESSAGE = 2048


@dataclass(frozen=True)
class Finding:
    """A new observation of one condition, before it is merged with the old condition."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Whether the condition of that type exists and is True."""
    condition = find(conditions, kind)
    return condition is not None and condition.status == TRUE


def merge(
    old: Sequence[Condition], findings: Iterable[Finding], generation: int | None, now: datetime
) -> list[Condition]:
    """The findings as conditions, in their order; a transition time changes only with its status."""
    merged = []
    for finding in findings:
        before = find(old, finding.type)
        since = before.last_transition_time if before and before.status == finding.status else rfc3339(now)
        merged.append(
            Condition(
                type=finding.type,
                status=finding.status,
                reason=reported.text(finding.reason),
                message=reported.text(finding.message, MAX_MESSAGE),
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return merged


def kstatus(state: str, reason: str, message: str = "") -> tuple[Finding, Finding, Finding]:
    """Ready, Reconciling and Stalled; at most one of them is True.

    Args:
        state: `Ready`, `Reconciling`, `Stalled`, or `Paused` for none of the three.
        reason: of the condition that is True, and of Ready.
        message: of the same two.
    """

    def finding(kind: str) -> Finding:
        if kind == state:
            return Finding(kind, TRUE, reason, message)
        if kind == "Ready":
            return Finding(kind, FALSE, reason, message)
        return Finding(kind, FALSE, "NotStalled" if kind == "Stalled" else "NothingToDo")

    return finding("Ready"), finding("Reconciling"), finding("Stalled")
