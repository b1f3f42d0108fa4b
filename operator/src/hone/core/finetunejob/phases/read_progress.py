"""What the prepare pod reports of the rows, and the pod of rank 0 while training runs."""

from hone.api.finetunejob_status import CheckpointStatus
from hone.core.conditions import TRUE
from hone.core.finetunejob.policies.adjustments import adjusted
from hone.core.finetunejob.state import State
from hone.core.finetunejob.status import costs, progress


def read_progress(state: State) -> None:
    """Record what the trainer reports, if the answer comes from the pod that runs."""
    _read_preparation(state)
    costs.expect(state)
    attempt = progress.running_trainer(state.status.attempts)
    pod = progress.rank_zero(attempt, state.observed.pods) if attempt else None
    if attempt is None or pod is None:
        return
    reading = state.observed.progress
    if progress.finding(pod, reading).status != TRUE or reading is None or reading.progress is None:
        return
    state.replace(attempt, adjusted(attempt, reading.progress.restarts, reading.progress.changes))
    state.status.progress = progress.to_status(reading.progress, state.status.plan)
    state.status.search = reading.progress.search or state.status.search
    costs.observe(state, attempt, state.observed.pods, reading.progress)
    if reading.progress.checkpoint_step is not None:
        state.status.checkpoint = CheckpointStatus(step=reading.progress.checkpoint_step)


def _read_preparation(state: State) -> None:
    attempt = progress.running_prepare(state.status.attempts)
    if attempt is None:
        state.status.preparation = None
        return
    pod, reading = progress.rank_zero(attempt, state.observed.pods), state.observed.progress
    if pod is None or reading is None or progress.finding(pod, reading).status != TRUE or reading.progress is None:
        return
    state.status.preparation = progress.preparation(reading.progress)
