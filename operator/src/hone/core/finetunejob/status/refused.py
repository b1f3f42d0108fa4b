"""What stays known where the API server refuses a write for good.

How an attempt ended is written down though the next one is refused: its pods may be gone once that one is let in.
What is still ours to give back stays known, and the job is not ended: one that has is not reconciled any more.
"""

from typing import Any

from hone.api.finetunejob_status import AttemptResult, FineTuneJobStatus, Phase
from hone.core.finetunejob.run import TRAIN
from hone.core.finetunejob.status.status import is_finished
from hone.core.finetunejob.steps import FIRST
from hone.core.plan import Plan


def observed_by(old: FineTuneJobStatus, plan: Plan) -> FineTuneJobStatus:
    """What a Plan's status tells of what was observed, without the attempt that its writes were to begin.

    Args:
        old: the status as it was read.
        plan: what was to be done.
    """
    if plan.status is None or plan.delete:  # what was to be deleted may be what ended
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
    return new.model_copy(update=update)
