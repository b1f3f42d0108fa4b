"""The state of one reconcile of a FineTuneJob: it starts with the status as read, and each phase changes it."""

from dataclasses import dataclass, field
from datetime import datetime

from hone.api.finetunejob_status import (
    AttemptResult,
    AttemptStatus,
    Failure,
    FineTuneJobStatus,
    FoundModel,
    UsageStatus,
)
from hone.core import pods as podinfo
from hone.core.children import Child, Write
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.policies.retry import GiveUp, key
from hone.core.finetunejob.run import TRAIN, Run
from hone.core.finetunejob.steps import PUBLISHING, SCORING, STEPS, next_step, publish
from hone.core.finetunejob.steps.finish import is_current
from hone.core.finetunejob.steps.step import Step, last_attempt, next_number
from hone.core.observed import Object, Observed, Pod
from hone.core.plan import Apply, Delete
from hone.core.pods import Trouble
from hone.core.times import rfc3339

MAX_ATTEMPTS = 20


@dataclass
class State:
    """The run, what was observed, and the results of the phases so far.

    Attributes:
        run: the job.
        observed: its children and pods.
        now: the time.
        old: the status as it was read.
        status: the new status so far; of its attempts, oldest first, at most one is running.
        trouble: what keeps the run from continuing, to be reported.
        gave_up: why the run ends for good.
        rehearse: objects of later steps, which the API server shall check now.
        create: objects to create.
        apply: objects to apply.
        delete: objects to delete.
        requeue: seconds after which something is due.
    """

    run: Run
    observed: Observed
    now: datetime
    old: FineTuneJobStatus
    status: Draft
    trouble: Trouble | None = None
    gave_up: GiveUp | None = None
    rehearse: list[Object] = field(default_factory=list)
    create: list[Object] = field(default_factory=list)
    apply: list[Apply] = field(default_factory=list)
    delete: list[Delete] = field(default_factory=list)
    requeue: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, observed: Observed, now: datetime, old: FineTuneJobStatus) -> "State":
        """The state before the first phase."""
        return cls(run=run, observed=observed, now=now, old=old, status=Draft.of(old))

    @property
    def running(self) -> AttemptStatus | None:
        """The running attempt, or None."""
        return next((attempt for attempt in self.status.attempts if attempt.result == AttemptResult.RUNNING), None)

    @property
    def live_pods(self) -> tuple[Pod, ...]:
        """Pods of the run that may still write to its volumes."""
        return tuple(pod for pod in self.observed.pods if not podinfo.is_over(pod))

    @property
    def step(self) -> Step | None:
        """The first step that is not done, or None at the end."""
        return next_step(self.run, self.status)

    @property
    def models(self) -> dict[str, FoundModel]:
        """The models of other jobs that the run reads."""
        return self.status.models or {}

    @property
    def spec_changed(self) -> bool:
        """Whether the spec was edited after it was prepared. Once training has started, edits are refused."""
        prepared = self.status.prepared_spec
        return self.status.start_time is None and prepared is not None and prepared != self.run.spec_digest

    @property
    def scores_outdated(self) -> bool:
        """Whether `spec.evaluation` was edited after the newest attempt to score began, or after its end."""
        return self.last(SCORING) is not None and not is_current(self.run, self.status)

    def is_outdated(self, step: Step) -> bool:
        """Whether the step's newest attempt was by another spec, which may be edited at any time for some steps."""
        if step is PUBLISHING:
            return self.last(step) is not None and publish.is_outdated(self.run, self.status)
        return step is SCORING and self.scores_outdated

    def forget_preparation(self) -> None:
        """Forget what was prepared from a spec that has been replaced."""
        status = self.status
        status.dataset = status.plan = status.run_config = status.prepared_spec = None
        status.failures, status.gpu, status.estimate, status.cache_claim = {}, None, None, None
        status.search = None

    def last(self, step: Step) -> AttemptStatus | None:
        """The newest attempt at the step, or None."""
        return last_attempt(self.status, step.name)

    def next_number(self, step: Step) -> int:
        """The number of the step's next attempt."""
        return next_number(self.status, step.name)

    def job_of(self, attempt: AttemptStatus) -> Object | None:
        """The attempt's Job, or None where it does not exist."""
        return self.observed.objects.get(self.run.job_ref(attempt.step, attempt.number))

    def write(self, child: Child) -> None:
        """Add a child to the Plan."""
        if child.write == Write.APPLY:
            self.apply.append(Apply(child.object))
        else:
            self.create.append(child.object)

    def replace(self, attempt: AttemptStatus, by: AttemptStatus) -> AttemptStatus:
        """Replace an attempt by what is now known about it; returns that."""
        attempts = self.status.attempts
        attempts[attempts.index(attempt)] = by
        return by

    def end(self, attempt: AttemptStatus, result: AttemptResult, failure: Failure | None = None) -> None:
        """Record how the attempt ended."""
        end = {"result": result, "end_time": rfc3339(self.now), "failure": failure}
        self.replace(attempt, attempt.model_copy(update=end))
        if failure:
            entry = key(attempt.step, failure.failure_class)
            self.status.failures[entry] = self.status.failures.get(entry, 0) + 1

    def begin(self, step: Step, number: int, start_time: str, spec: str | None) -> None:
        """Record that an attempt runs. Drops the oldest attempts, but never the last one of a step.

        Args:
            step: the step.
            number: number of the attempt within its step.
            start_time: when its Job was created.
            spec: digest of the spec that it was created from.
        """
        if self.is_outdated(step):
            self.status.failures = {
                name: count for name, count in self.status.failures.items() if not name.startswith(f"{step.name}.")
            }
        if step is SCORING:
            self.status.scored_spec, self.status.not_scored = spec, None
        if step is PUBLISHING:
            self.status.published_spec, self.status.not_published = spec, None
        attempts, job = self.status.attempts, self.run.job(step.name, number)
        attempts.append(
            AttemptStatus(step=step.name, number=number, job=job, start_time=start_time, result=AttemptResult.RUNNING)
        )
        newest = {id(self.last(each)) for each in STEPS.values()}
        while len(attempts) > MAX_ATTEMPTS:
            attempts.remove(next(attempt for attempt in attempts if id(attempt) not in newest))
        if step.name == TRAIN and self.status.start_time is None:
            self.status.start_time = start_time

    def count_gpu_seconds(self, seconds: int) -> None:
        """Add the GPU seconds of an attempt that has ended."""
        usage = self.status.usage or UsageStatus()
        self.status.usage = usage.model_copy(update={"gpu_seconds": usage.gpu_seconds + seconds})
