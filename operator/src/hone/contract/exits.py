"""How a step can end: the failure classes, the exit code of each, and what the operator does next."""

from dataclasses import dataclass
from enum import StrEnum


class FailureClass(StrEnum):
    """Why a pod, and with it an attempt, ended. The names appear in `status.attempts[].failure.class`."""

    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    NEVER_STARTED = "NeverStarted"
    OUT_OF_MEMORY = "OutOfMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    DIVERGED = "Diverged"
    BAD_INPUT = "BadInput"
    CRASHED = "Crashed"
    HUNG = "Hung"
    COMMUNICATION = "Communication"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


@dataclass(frozen=True)
class Policy:
    """What the operator does after a failure of a class.

    Attributes:
        exit_code: the code that the launcher exits with; None if the class is not reported by an exit code.
        counts: whether the attempt counts against `retry.limit`.
        retries: whether there is a next attempt at all.
        at_most: the most attempts that may end in this class, or None for no limit of its own.
        rank: position in the search for the cause over all ranks and pods; the lowest wins. A communication error is
            nearly always a consequence of another rank's failure, so it comes last.
    """

    exit_code: int | None
    counts: bool
    retries: bool
    at_most: int | None
    rank: int


POLICIES: dict[FailureClass, Policy] = {
    FailureClass.DEADLINE_EXCEEDED: Policy(None, counts=False, retries=False, at_most=None, rank=0),
    FailureClass.PREEMPTED: Policy(75, counts=False, retries=True, at_most=None, rank=1),
    FailureClass.NODE_LOST: Policy(None, counts=False, retries=True, at_most=None, rank=2),
    FailureClass.BAD_INPUT: Policy(64, counts=False, retries=False, at_most=None, rank=3),
    FailureClass.DIVERGED: Policy(66, counts=True, retries=True, at_most=2, rank=4),
    FailureClass.OUT_OF_MEMORY: Policy(65, counts=True, retries=True, at_most=None, rank=5),
    FailureClass.HOST_OUT_OF_MEMORY: Policy(137, counts=True, retries=True, at_most=None, rank=6),
    FailureClass.HUNG: Policy(67, counts=True, retries=True, at_most=None, rank=7),
    FailureClass.CRASHED: Policy(70, counts=True, retries=True, at_most=None, rank=8),
    FailureClass.NEVER_STARTED: Policy(69, counts=False, retries=True, at_most=5, rank=9),
    FailureClass.COMMUNICATION: Policy(68, counts=True, retries=True, at_most=None, rank=10),
}

_BY_CODE = {policy.exit_code: cls for cls, policy in POLICIES.items() if policy.exit_code is not None}


def exit_code(cls: FailureClass) -> int:
    """The exit code of a class; 70 (Crashed) for the classes that are not reported by an exit code."""
    code = POLICIES[cls].exit_code
    return 70 if code is None else code


def from_exit_code(code: int) -> FailureClass:
    """The class that an exit code stands for; Crashed if the code is unknown."""
    return _BY_CODE.get(code, FailureClass.CRASHED)
