"""What one look at a FineTuneJob works out: begun from its status, changed by each phase, ended as Plan and status."""

from dataclasses import dataclass, field
from datetime import datetime

from hone.api.finetunejob_status import (
    ArtifactStatus,
    AttemptResult,
    AttemptStatus,
    CheckpointStatus,
    Failure,
    FineTuneJobStatus,
    FoundModel,
    ProgressStatus,
)
from hone.contract.plan import DatasetSummary
from hone.contract.plan import Plan as TrainingPlan
from hone.contract.results import EvaluationSummary
from hone.core import pods as podinfo
from hone.core.finetunejob.policies.retry import GiveUp, key
from hone.core.finetunejob.run import Run, Step
from hone.core.observed import Object, Observed, Pod
from hone.core.plan import Apply, Delete
from hone.core.pods import Trouble
from hone.core.times import rfc3339

MAX_ATTEMPTS = 20


@dataclass
class State:
    """The run, what was observed of it, and what was worked out so far.

    Attributes:
        run: the job.
        observed: its children and pods.
        now: the time.
        old: the status as it was read.
        attempts: all attempts known, oldest first; at most one runs.
        failures: attempts that failed, by `<step>.<class>`.
        trouble: what keeps the run from going on, to be shown.
        gave_up: why the run ends for good.
        requeue: seconds after which something is due.
    """

    run: Run
    observed: Observed
    now: datetime
    old: FineTuneJobStatus
    attempts: list[AttemptStatus] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    dataset: DatasetSummary | None = None
    plan: TrainingPlan | None = None
    progress: ProgressStatus | None = None
    evaluation: EvaluationSummary | None = None
    artifact: ArtifactStatus | None = None
    checkpoint: CheckpointStatus | None = None
    gpu_seconds: int = 0
    models: dict[str, FoundModel] = field(default_factory=dict)
    run_config: str | None = None
    prepared_spec: str | None = None
    start_time: str | None = None
    trouble: Trouble | None = None
    gave_up: GiveUp | None = None
    create: list[Object] = field(default_factory=list)
    apply: list[Apply] = field(default_factory=list)
    delete: list[Delete] = field(default_factory=list)
    requeue: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, observed: Observed, now: datetime, old: FineTuneJobStatus) -> "State":
        """The state as the status tells it."""
        return cls(
            run=run,
            observed=observed,
            now=now,
            old=old,
            attempts=list(old.attempts),
            failures=dict(old.failures),
            dataset=old.dataset,
            plan=old.plan,
            progress=old.progress,
            evaluation=old.evaluation,
            artifact=old.artifact,
            checkpoint=old.checkpoint,
            gpu_seconds=old.usage.gpu_seconds if old.usage else 0,
            models=dict(old.models or {}),
            run_config=old.run_config,
            prepared_spec=old.prepared_spec,
            start_time=old.start_time,
        )

    @property
    def running(self) -> AttemptStatus | None:
        """The attempt that is under way, or None."""
        return next((attempt for attempt in self.attempts if attempt.result == AttemptResult.RUNNING), None)

    @property
    def live_pods(self) -> tuple[Pod, ...]:
        """Pods of the run that may still write to its volumes."""
        return tuple(pod for pod in self.observed.pods if not podinfo.is_over(pod))

    @property
    def step(self) -> Step | None:
        """The first step that is not done, or None at the end."""
        return next((step for step in Step if not self.done(step)), None)

    def done(self, step: Step) -> bool:
        """Whether the step has given its result."""
        if step == Step.PREPARE:
            return self.plan is not None
        if step == Step.FINISH:
            return self.artifact is not None
        last = self.last(step)
        return last is not None and last.result == AttemptResult.SUCCEEDED

    def last(self, step: Step) -> AttemptStatus | None:
        """The newest attempt at the step, or None."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.step == step), None)

    def next_number(self, step: Step) -> int:
        """The number of the step's next attempt."""
        last = self.last(step)
        return last.number + 1 if last else 1

    @property
    def spec_changed(self) -> bool:
        """Whether the spec was edited after it was prepared. Once training has started, edits are refused."""
        prepared = self.prepared_spec
        return self.start_time is None and prepared is not None and prepared != self.run.spec_digest

    def forget_preparation(self) -> None:
        """Forget what was prepared from a spec that has been replaced."""
        self.dataset = self.plan = self.run_config = self.prepared_spec = None
        self.failures = {}

    def job_of(self, attempt: AttemptStatus) -> Object | None:
        """The attempt's Job, or None where it does not exist."""
        return self.observed.objects.get(self.run.job_ref(attempt.step, attempt.number))

    def replace(self, attempt: AttemptStatus, by: AttemptStatus) -> AttemptStatus:
        """Put what is now known of an attempt in its place; returns it."""
        self.attempts[self.attempts.index(attempt)] = by
        return by

    def end(self, attempt: AttemptStatus, result: AttemptResult, failure: Failure | None = None) -> None:
        """Record how the attempt ended."""
        end = {"result": result, "end_time": rfc3339(self.now), "failure": failure}
        self.replace(attempt, attempt.model_copy(update=end))
        if failure:
            entry = key(attempt.step, failure.failure_class)
            self.failures[entry] = self.failures.get(entry, 0) + 1

    def begin(self, step: Step, number: int, start_time: str) -> None:
        """Record that an attempt runs. The oldest are forgotten, but never the last one of a step."""
        name = self.run.job(step, number)
        self.attempts.append(
            AttemptStatus(step=step, number=number, job=name, start_time=start_time, result=AttemptResult.RUNNING)
        )
        kept = {id(self.last(each)) for each in Step}
        while len(self.attempts) > MAX_ATTEMPTS:
            self.attempts.remove(next(attempt for attempt in self.attempts if id(attempt) not in kept))
        if step == Step.TRAIN and self.start_time is None:
            self.start_time = start_time
