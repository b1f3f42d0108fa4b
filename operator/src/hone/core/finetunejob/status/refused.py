"""What the status records if the API server refuses a write for good.

How an attempt ended is recorded even if the next one is refused: its pods may be gone by the time it is accepted.
Claims that still have to be given back stay recorded, and the job does not end: an ended job is not reconciled again.
"""

from typing import Any

from hone.api.finetunejob_status import AttemptResult, FineTuneJobStatus, Phase
from hone.core.finetunejob.run import TRAIN
from hone.core.finetunejob.status.status import is_finished
from hone.core.finetunejob.steps import FIRST, PUBLISHING, SCORING
from hone.core.plan import Plan

RECORDED = {
    SCORING.name: ("scored_spec", "not_scored"),
    PUBLISHING.name: ("published_spec", "not_published"),
}
"""What `State.begin` records of an attempt at these steps. Without the attempt, the one before it would count for the
new spec, and nothing would be scored or published by that."""


def observed_by(old: FineTuneJobStatus, plan: Plan) -> FineTuneJobStatus:
    """The observed part of a Plan's status, without the attempt that its writes were to begin.

    Args:
        old: the status as it was read.
        plan: what was to be done.
    """
    if plan.status is None or plan.delete:  # the status may record the end of what was to be deleted
        return old
    new = FineTuneJobStatus.from_dict(plan.status)
    known = {(attempt.step, attempt.number) for attempt in old.attempts}
    begun = [a for a in new.attempts if a.result == AttemptResult.RUNNING and (a.step, a.number) not in known]
    rest = [attempt for attempt in new.attempts if attempt not in begun]
    phase = new.phase if rest else Phase.PENDING
    update: dict[str, Any] = {"attempts": rest, "phase": phase, "models": old.models}
    if is_finished(new):
        update |= {"phase": old.phase, "conditions": old.conditions, "completion_time": old.completion_time}
    if all(attempt.step != TRAIN for attempt in rest):
        update["start_time"] = old.start_time
    if any(attempt.step == FIRST.name for attempt in begun) and new.prepared_spec != old.prepared_spec:
        update |= {"prepared_spec": None, "run_config": None}
    for step, fields in RECORDED.items():
        if any(attempt.step == step for attempt in begun):
            update |= {field: getattr(old, field) for field in fields}
            dropped = {name: count for name, count in old.failures.items() if name.startswith(f"{step}.")}
            update["failures"] = dropped | new.failures
    return new.model_copy(update=update)
