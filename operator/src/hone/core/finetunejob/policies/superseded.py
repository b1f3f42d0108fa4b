"""Which attempts are over for good, so that nobody needs their Jobs any longer.

Only once the status has what came of the attempt and names another attempt at its step: with its Job gone, an attempt
that status calls running would count as lost.
"""

from hone.api.finetunejob_status import AttemptResult, FineTuneJobStatus
from hone.core.finetunejob.run import Run
from hone.core.observed import Ref


def superseded(run: Run, status: FineTuneJobStatus) -> set[Ref]:
    """The Jobs of attempts that have ended and were followed by others at the same step.

    The last Job of each step stays for its pods' logs, until Kubernetes removes it (`removed_later`).
    """
    return {
        run.job_ref(attempt.step, attempt.number)
        for position, attempt in enumerate(status.attempts)
        if attempt.result != AttemptResult.RUNNING
        and any(later.step == attempt.step for later in status.attempts[position + 1 :])
    }
