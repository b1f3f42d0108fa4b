"""What the next attempt does differently from those that failed: less memory, a lower learning rate."""

from collections.abc import Mapping, Sequence

from hone.contract.exits import FailureClass
from hone.contract.record import RunRecord
from hone.contract.runconfig import Attempt, Publication, SharedVolume
from hone.contract.settings import Evaluation
from hone.core.finetunejob.policies.retry import key
from hone.core.finetunejob.run import FINISH, PREPARE, PUBLISH

DIVERGED_FACTOR = 0.5
"""Factor for the planned learning rate after a divergence; a second divergence ends the run (`POLICIES`)."""


def attempt(
    step: str,
    number: int,
    failures: Mapping[str, int],
    edited: Evaluation | None = None,
    publish: Publication | None = None,
    record: RunRecord | None = None,
    seconds: float | None = None,
    shared: Sequence[SharedVolume] = (),
) -> Attempt:
    """The configuration of an attempt for its pods.

    Each attempt that ended out of memory has used up one level of the trainer's memory fallback; what a pod adjusted in
    place is no failure, and the trainer remembers it by itself. Only training has levels and a learning rate. Only
    finish scores.

    Args:
        step: the step.
        number: number of the attempt within its step, from 1.
        failures: failures so far, by step and class (`status.failures`).
        edited: `spec.evaluation` if it was edited after the RunConfig was made, which never changes.
        publish: the copy to make.
        record: what the report is to say of the run.
        seconds: how long training may take before the budget is used up; None: there is no limit.
        shared: volumes on which prepare may make room.
    """
    if step == PUBLISH:
        return Attempt(number=number, publish=publish)
    if step == FINISH:
        return Attempt(number=number, evaluation=edited, record=record)
    if step == PREPARE:
        return Attempt(number=number, shared=[*shared])
    return Attempt(
        number=number,
        memory_fallback_level=failures.get(key(step, FailureClass.OUT_OF_MEMORY), 0),
        budget_seconds=seconds,
        learning_rate_factor=DIVERGED_FACTOR if failures.get(key(step, FailureClass.DIVERGED)) else 1.0,
    )
