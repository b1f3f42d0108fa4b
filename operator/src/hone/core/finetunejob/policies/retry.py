"""Whether a step is retried after a failure, and when, by the table of failure classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, Failure
from hone.contract.exits import POLICIES, FailureClass
from hone.core.times import parse, seconds_since

BACKOFF_SECONDS = {FailureClass.NEVER_STARTED: 30.0}
"""Wait before the next attempt, doubled with each failure of the class. Classes that are absent do not wait."""
MAX_BACKOFF_SECONDS = 600.0
QUICK_SECONDS = 120.0
"""An attempt that ended sooner has done hardly any work. If its class does not count, nothing else limits the retries:
a pod that fills its node's disk is evicted from every node within seconds."""
QUICK_BACKOFF_SECONDS = 10.0
"""Wait after the second such attempt in a row, doubled with each further one."""


@dataclass(frozen=True)
class GiveUp:
    """Why there is no next attempt."""

    reason: str
    message: str


def key(step: str, cls: str) -> str:
    """The entry of `status.failures` that counts the class."""
    return f"{step}.{cls}"


def counted(failures: Mapping[str, int], step: str | None = None) -> int:
    """Failures that count against `retry.limit`: of one step, or of all."""
    total = 0
    for entry, number in failures.items():
        entry_step, _, cls = entry.partition(".")
        if step in (None, entry_step) and cls in POLICIES and POLICIES[FailureClass(cls)].counts:
            total += number
    return total


def give_up(step: str, failure: Failure, failures: Mapping[str, int], limit: int) -> GiveUp | None:
    """Why the step is not retried after `failure`, or None if it is.

    Args:
        step: the step that failed.
        failure: its newest failure.
        failures: failures so far by step and class, this one included.
        limit: `retry.limit`, which applies to each step separately.
    """
    cls = FailureClass(failure.failure_class)
    policy = POLICIES[cls]
    message = failure.message + (f" ({failure.hint})" if failure.hint else "")
    if failure.final or not policy.retries:
        return GiveUp(str(cls), message)
    times = failures.get(key(step, cls), 0)
    if policy.at_most is not None and times >= policy.at_most:
        return GiveUp(str(cls), f"{step} failed {times} times with {cls}; last failure: {message}")
    total = counted(failures, step)
    if policy.counts and total > limit:
        return GiveUp(
            "RetryLimitExceeded",
            f"{step} failed, and its failures ({total}) exceed retry.limit ({limit}); last failure: {message}",
        )
    return None


def backoff(step: str, failure: Failure, failures: Mapping[str, int], quick: int = 0, least: float = 0.0) -> float:
    """Seconds between the end of a failed attempt and the next one.

    Args:
        step: the step that failed.
        failure: its newest failure.
        failures: failures so far by step and class, this one included.
        quick: how many attempts in a row ended quickly in a class that does not count (`quick_ends`).
        least: the wait after the first failure of any class.
    """
    cls = FailureClass(failure.failure_class)
    times = failures.get(key(step, cls), 1)
    wait = max(BACKOFF_SECONDS.get(cls, 0.0), least) * 2.0 ** (times - 1)
    if quick > 1:
        wait = max(wait, QUICK_BACKOFF_SECONDS * 2.0 ** (quick - 2))
    return min(wait, MAX_BACKOFF_SECONDS)


def quick_ends(step: str, attempts: Sequence[AttemptStatus]) -> int:
    """How many of the step's newest attempts ended quickly, one after another, in a class that does not count."""
    number = 0
    for attempt in reversed([each for each in attempts if each.step == step]):
        if attempt.failure is None or attempt.end_time is None or attempt.result != AttemptResult.FAILED:
            break
        if POLICIES[FailureClass(attempt.failure.failure_class)].counts:
            break
        if seconds_since(attempt.start_time, parse(attempt.end_time)) >= QUICK_SECONDS:
            break
        number += 1
    return number
