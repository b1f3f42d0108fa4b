"""Progress: the pod to query, and its answer in the form of the status."""

from datetime import UTC, datetime, timedelta

from hone.api.finetunejob_status import (
    AttemptResult,
    AttemptStatus,
    FineTuneJobStatus,
    PreparationStatus,
    ProgressStatus,
)
from hone.contract.plan import Plan as TrainingPlan
from hone.contract.progress import CHECKING_ROWS, DOWNLOADING, TOKENIZING, Progress
from hone.core import pods as podinfo
from hone.core.conditions import FALSE, TRUE, UNKNOWN, Finding
from hone.core.finetunejob.run import PREPARE, TRAIN
from hone.core.finetunejob.steps.validation import best_evaluation, loss_text
from hone.core.kind import ProgressTarget
from hone.core.observed import Object, Pod, ProgressReading
from hone.core.times import duration, rfc3339

NOT_TRAINING = "NotTraining"
NOT_ASKED = "NotAskedYet"
MAX_SECONDS = 10 * 365 * 86_400.0
"""A longer time left is not shown."""
MAX_MOMENT = 100_000_000_000.0
"""Seconds since the epoch that still fit into a date when a time left is added."""


def running_trainer(attempts: list[AttemptStatus]) -> AttemptStatus | None:
    """The attempt at training that is under way, or None."""
    return _running(attempts, TRAIN)


def running_prepare(attempts: list[AttemptStatus]) -> AttemptStatus | None:
    """The same of prepare."""
    return _running(attempts, PREPARE)


def _running(attempts: list[AttemptStatus], step: str) -> AttemptStatus | None:
    return next((a for a in attempts if a.step == step and a.result == AttemptResult.RUNNING), None)


def rank_zero(attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Pod | None:
    """The pod of the first index, which in training runs rank 0; None if it is not running."""
    for pod in podinfo.of_job(pods, attempt.job):
        if podinfo.index(pod) == 0 and not podinfo.is_over(pod) and podinfo.phase(pod) == "Running":
            return pod
    return None


def target(resource: Object, pods: tuple[Pod, ...]) -> ProgressTarget | None:
    """The pod to query for progress: its uid and address."""
    status = FineTuneJobStatus.from_dict(resource.get("status") or {})
    attempts = list(status.attempts)
    attempt = running_trainer(attempts) or running_prepare(attempts)
    pod = rank_zero(attempt, pods) if attempt else None
    address = (pod.raw.get("status") or {}).get("podIP") if pod else None
    return ProgressTarget(pod.raw["metadata"]["uid"], address) if pod and address else None


def finding(pod: Pod | None, reading: ProgressReading | None) -> Finding:
    """The condition ProgressAvailable. If progress cannot be read, training may still run normally."""
    kind = "ProgressAvailable"
    if pod is None:
        return Finding(kind, UNKNOWN, NOT_TRAINING, "no trainer pod is running")
    if reading is None or reading.pod_uid != pod.raw["metadata"]["uid"]:
        return Finding(kind, UNKNOWN, NOT_ASKED, "the trainer pod has not been queried yet")
    if reading.progress is None:
        return Finding(
            kind, FALSE, "Unreachable", f"the trainer pod does not report its progress: {reading.error or 'no answer'}"
        )
    if reading.progress.pod_uid not in ("", reading.pod_uid):
        return Finding(kind, FALSE, "OtherPod", "another pod answers at the address of the trainer pod")
    return Finding(kind, TRUE, "Reporting")


def to_status(progress: Progress, plan: TrainingPlan | None) -> ProgressStatus:
    """A trainer pod's answer as `status.progress`."""
    total = progress.total_steps or (plan.total_steps if plan else 0)
    step = min(progress.step, total) if total else progress.step
    observed = _moment(progress.observed_time)
    left = (total - step) * progress.seconds_per_step if progress.seconds_per_step and total else None
    if left is not None and not 0 <= left < MAX_SECONDS:
        left = None
    done = step >= total > 0
    end = observed + timedelta(seconds=left) if observed and left is not None and not done else None
    return ProgressStatus(
        step=step,
        total_steps=total,
        percent=100 * step // total if total else 0,
        epoch=round(progress.epoch, 2),
        loss=loss_text(progress.loss),
        reward=loss_text(progress.reward),
        eval_loss=loss_text(progress.eval_loss),
        **best_evaluation(progress),
        tokens_per_second=round(progress.tokens_per_second, 1) if progress.tokens_per_second is not None else None,
        eta=duration(left) if left is not None and not done else None,
        estimated_completion_time=rfc3339(end) if end else None,
        observed_time=rfc3339(observed) if observed else None,
    )


def preparation(progress: Progress) -> PreparationStatus | None:
    """A prepare pod's answer as `status.preparation`; None as long as it reports neither bytes nor rows."""
    if progress.stage == DOWNLOADING and progress.downloaded_bytes is not None:
        return _downloading(progress, progress.downloaded_bytes)
    if progress.stage not in (CHECKING_ROWS, TOKENIZING) or progress.rows is None:
        return None
    rate, total = progress.rows_per_second, progress.total_rows
    observed = _moment(progress.observed_time)
    return PreparationStatus(
        stage=progress.stage,
        rows=progress.rows,
        total_rows=total,
        rows_per_second=round(rate, 1) if rate is not None else None,
        eta=_left(progress.rows, total, rate),
        observed_time=rfc3339(observed) if observed else None,
    )


def _downloading(progress: Progress, done: int) -> PreparationStatus:
    rate, total, observed = progress.bytes_per_second, progress.total_bytes, _moment(progress.observed_time)
    return PreparationStatus(
        stage=DOWNLOADING,
        downloaded_bytes=done,
        total_bytes=total,
        bytes_per_second=round(rate) if rate is not None else None,
        eta=_left(done, total, rate),
        observed_time=rfc3339(observed) if observed else None,
    )


def _left(done: int, total: int | None, rate: float | None) -> str | None:
    """The time until all is done, as text; None: not known."""
    left = (total - done) / rate if rate and total else None
    return duration(left) if left is not None and 0 <= left < MAX_SECONDS else None


def _moment(seconds: float) -> datetime | None:
    """A time in seconds since the epoch as datetime; None if it is out of range."""
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < MAX_MOMENT else None
