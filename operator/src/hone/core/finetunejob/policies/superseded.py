"""Which attempts are over for good, so that nobody needs their Jobs any longer.

Only once the status has what came of the attempt and names one that followed it: with its Job gone, an attempt that
status calls running would count as lost. The last Job of a run stays, so that its pods' logs can be read.
"""

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, FineTuneJobStatus
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.steps import STEPS
from hone.core.observed import Ref


def superseded(run: Run, status: FineTuneJobStatus) -> set[Ref]:
    """The Jobs of attempts that have ended and were followed by others.

    Kubernetes itself removes the last Job of a step that sets a time for that (`Step.job_spec`), at no cost to us.
    """
    return {
        run.job_ref(attempt.step, attempt.number)
        for position, attempt in enumerate(status.attempts)
        if attempt.result != AttemptResult.RUNNING and _is_over(run, attempt, status.attempts[position + 1 :])
    }


def _is_over(run: Run, attempt: AttemptStatus, later: list[AttemptStatus]) -> bool:
    again = any(each.step == attempt.step for each in later)
    return again or (bool(later) and "ttlSecondsAfterFinished" not in STEPS[attempt.step].job_spec(run))
