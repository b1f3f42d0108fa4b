"""GPU hours and cost as status shows them: what was used, and what training will need."""

from typing import Any

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, UsageStatus
from hone.contract.progress import Progress
from hone.core import pods as podinfo
from hone.core.finetunejob.policies import budget, estimate
from hone.core.finetunejob.policies.retry import counted
from hone.core.finetunejob.state import State
from hone.core.observed import Pod
from hone.core.times import parse

HOURS_DIGITS = 2
"""Digits of GPU hours after the point: status is written when they change."""


def expect(state: State) -> None:
    """Estimate what was planned, as long as nothing is known that was measured."""
    status, run = state.status, state.run
    if status.estimate is None and status.plan and status.dataset:
        status.estimate = estimate.from_table(run.spec.objective, status.plan, status.dataset, run.gpu)


def observe(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...], progress: Progress) -> None:
    """Take GPU hours and the estimate from what a running attempt reports."""
    gpus = state.run.training_gpus
    starts = [parse(moment) for pod in podinfo.of_job(pods, attempt.job) if (moment := podinfo.started_at(pod))]
    if not gpus or not starts:
        return
    usage = state.status.usage or UsageStatus()
    # The pod is not trusted: its clock counts up to the present.
    seconds = max(0.0, min(progress.observed_time, state.now.timestamp()) - min(starts).timestamp())
    hours = round((usage.gpu_seconds + gpus * seconds) / 3600, HOURS_DIGITS)
    state.status.usage = usage.model_copy(update={"gpu_hours": max(hours, usage.gpu_hours or 0.0)})
    trials = state.status.plan.search if state.status.plan else None
    trial_steps = trials.total_steps if trials else 0
    state.status.estimate = estimate.from_progress(progress, gpus, trial_steps) or state.status.estimate


def of_status(state: State) -> dict[str, Any]:
    """Usage, estimate and cost of the new status."""
    run, known = state.run, state.status
    usage = known.usage or UsageStatus()
    usage = usage.model_copy(update={"retries": counted(known.failures)})
    if not run.training_gpus:
        return {"usage": usage}
    running = any(each.result == AttemptResult.RUNNING for each in known.attempts)
    ended = round(usage.gpu_seconds / 3600, HOURS_DIGITS)
    hours = max(ended, usage.gpu_hours or 0.0) if running else ended
    hourly = budget.price(run)
    return {
        "usage": usage.model_copy(update={"gpu_hours": hours or None}),
        "estimate": known.estimate,
        "cost": budget.cost(hourly, hours, known.estimate) if hourly else None,
    }
