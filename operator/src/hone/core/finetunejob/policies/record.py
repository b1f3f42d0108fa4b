"""What finish puts into the report of a run that only the operator knows: attempts, GPU time, price."""

from hone.api.finetunejob_status import AttemptResult, AttemptStatus
from hone.contract.record import MAX_ATTEMPTS, AttemptRecord, RunRecord
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.policies.budget import price
from hone.core.finetunejob.policies.retry import counted
from hone.core.finetunejob.run import Run
from hone.core.reported import text

_MESSAGE, _HINT, _CHANGE, _CHANGES = 512, 256, 256, 8


def record(run: Run, status: Draft) -> RunRecord:
    """The record of a run whose finish step is about to begin."""
    ended = [each for each in status.attempts if each.result != AttemptResult.RUNNING]
    return RunRecord(
        attempts=[_attempt(each) for each in ended[-MAX_ATTEMPTS:]],
        gpu_seconds=status.usage.gpu_seconds if status.usage else 0,
        gpus=run.training_gpus,
        retries=counted(status.failures),
        price=price(run),
    )


def _attempt(attempt: AttemptStatus) -> AttemptRecord:
    failure = attempt.failure
    return AttemptRecord(
        step=attempt.step,
        number=attempt.number,
        start_time=attempt.start_time,
        end_time=attempt.end_time,
        result=attempt.result,
        failure_class=failure.failure_class if failure else None,
        message=text(failure.message, _MESSAGE) if failure else None,
        hint=text(failure.hint, _HINT) if failure and failure.hint else None,
        changes=[text(change, _CHANGE) for change in (attempt.changes or [])[:_CHANGES]],
    )
