"""The status that a reconcile ends with: phase, conditions and figures, all observed, none used to skip work."""

from hone.api.finetunejob_status import AttemptStatus, FineTuneJobStatus, OutputStatus, Phase
from hone.contract.exits import FailureClass
from hone.core import pods as podinfo
from hone.core.allowlists import NOT_ALLOWED
from hone.core.conditions import FALSE, TRUE, UNKNOWN, Finding, find, is_true, kstatus, merge
from hone.core.finetunejob.policies import budget, upstream
from hone.core.finetunejob.policies.dependencies import STALLED_REASONS
from hone.core.finetunejob.resources import queue
from hone.core.finetunejob.start import all_started, is_queued
from hone.core.finetunejob.state import State
from hone.core.finetunejob.status import costs, gate, progress, scores
from hone.core.finetunejob.steps import PUBLISHING
from hone.core.finetunejob.steps.publish import is_withdrawn
from hone.core.observed import Pod
from hone.core.times import rfc3339

MAX_PLACES = 3
"""Pods that a message names."""


def is_finished(status: FineTuneJobStatus) -> bool:
    """Whether the job has ended, well or not."""
    return is_true(status.conditions, "Finished")


def phase(state: State) -> Phase:
    """The job's phase, for people."""
    if state.gave_up:
        return Phase.FAILED
    if state.step is None:
        return Phase.SUCCEEDED
    if state.run.spec.suspend:
        return Phase.SUSPENDED
    if state.trouble and state.trouble.reason == budget.EXHAUSTED:
        return Phase.SUSPENDED
    if state.trouble and state.trouble.reason in (NOT_ALLOWED, *budget.REASONS, *upstream.REASONS):
        return Phase.PENDING
    attempt = state.running
    pods = podinfo.of_job(state.observed.pods, attempt.job) if attempt else ()
    has_started = attempt is not None and all_started(state, attempt, pods)
    return state.step.phase(state.last(state.step) is not None, has_started)


def findings(state: State) -> list[Finding]:
    """The conditions, in the order in which they are shown."""
    ended = _ended(state)
    complete, failed, known = _complete(state), ended == "Failed", state.status
    reason, message = _now(state)
    words = state.gave_up.message if state.gave_up else message
    why = state.gave_up.reason if state.gave_up else "InProgress"
    return [
        _validated(state),
        _suspended(state),
        _progress_available(state),
        gate.promotable(state.run, known, complete is not None, failed),
        complete or Finding("Complete", FALSE, why),
        Finding("Failed", TRUE, why, words) if failed else Finding("Failed", FALSE, ended or "InProgress"),
        Finding("Finished", TRUE, ended, words) if ended else Finding("Finished", FALSE, "InProgress"),
        *_published(state),
        *kstatus(_kstate(state), why if failed else reason, words),
    ]


def _ended(state: State) -> str | None:
    if state.gave_up:
        return "Failed"
    return "Succeeded" if state.step is None else None


def _complete(state: State) -> Finding | None:
    """The condition Complete of a job that has a tuned model, also while that is scored again; None of any other."""
    if state.step in (None, PUBLISHING):
        return Finding("Complete", TRUE, *_result(state))
    before = find(state.old.conditions, "Complete")
    if state.status.artifact is None or before is None or before.status != TRUE:
        return None
    return Finding("Complete", TRUE, before.reason, before.message)


def _kstate(state: State) -> str:
    if state.gave_up:
        return "Stalled"
    if state.step is None:
        return "Ready"
    if state.run.spec.suspend:
        return "Paused"
    return "Stalled" if state.trouble and state.trouble.reason in STALLED_REASONS else "Reconciling"


def _result(state: State) -> tuple[str, str]:
    """What the job has made, as reason and message."""
    if state.status.not_scored:
        return "NotScored", f"the model is complete, but was not scored: {state.status.not_scored}"
    score = scores.improvement(state.status.evaluation) if state.status.evaluation else None
    return "Succeeded", f"improvement over the base: {score}" if score else ""


def _published(state: State) -> list[Finding]:
    """The condition Published of a job whose spec asks for a copy of its model."""
    run, status, kind = state.run, state.status, "Published"
    if run.publish_digest is None:
        return []
    last = state.last(PUBLISHING)
    failure = last.failure if last and not state.is_outdated(PUBLISHING) else None
    if PUBLISHING.is_done(run, status) and status.not_published is None and status.output and status.output.published:
        copy = status.output.published
        return [Finding(kind, TRUE, "Published", f"{copy.uri}, {copy.revision or copy.digest}")]
    if failure:
        words = f"{failure.message} ({failure.hint})" if failure.hint else failure.message
        return [Finding(kind, FALSE, failure.reason or failure.failure_class, words)]
    return [Finding(kind, FALSE, "Publishing" if state.step is PUBLISHING else "NotComplete")]


def _now(state: State) -> tuple[str, str]:
    """The current activity, as reason and message."""
    if state.step is None:
        return _result(state)
    if state.run.spec.suspend:
        return (
            "Suspended",
            "the pods are stopping; training saves a checkpoint first" if state.live_pods else "spec.suspend is true",
        )
    if state.trouble:
        return state.trouble.reason, state.trouble.message
    attempt = state.running
    if attempt:
        job, words = state.job_of(attempt), _attempt_words(state, attempt)
        if job is not None and is_queued(job):
            return Phase.QUEUED, f"{words}: {queue.waits_for(job)}"
        return str(phase(state)), words
    if state.live_pods:
        return "WaitingForPods", f"waiting for the pods of the last attempt to terminate: {_places(state.live_pods)}"
    last = state.last(state.step)
    if last and last.failure:
        return (
            "BackOff",
            f"{state.step.name} will be retried after {last.failure.failure_class}: {last.failure.message}",
        )
    return str(phase(state)), ""


def _places(pods: tuple[Pod, ...]) -> str:
    """The first pods with their nodes: an administrator has to confirm that a node which is down will not return."""
    shown = [
        f"{pod.raw['metadata']['name']} on {(pod.raw.get('spec') or {}).get('nodeName', 'no node')}"
        for pod in pods[:MAX_PLACES]
    ]
    more = [f"{len(pods) - MAX_PLACES} more"] if len(pods) > MAX_PLACES else []
    return ", ".join([*shown, *more])


def _attempt_words(state: State, attempt: AttemptStatus) -> str:
    words = f"{attempt.step}, attempt {attempt.number}"
    before = [a for a in state.status.attempts if a.step == attempt.step and a.number == attempt.number - 1]
    if before and before[0].failure:
        words += f" after {before[0].failure.failure_class}: {before[0].failure.message}"
    return words


def _validated(state: State) -> Finding:
    kind = "Validated"
    if state.status.plan and state.status.dataset:
        rows = f"{state.status.dataset.train_rows} rows to train on, {state.status.plan.total_steps} steps"
        if warnings := [*state.status.plan.warnings, *gate.warnings(state.run, state.status)]:
            return Finding(kind, TRUE, "ValidatedWithWarnings", f"{rows}; {'; '.join(warnings)}")
        return Finding(kind, TRUE, "Validated", rows)
    if state.gave_up:
        wrong = state.gave_up.reason == FailureClass.BAD_INPUT
        return Finding(kind, FALSE if wrong else UNKNOWN, state.gave_up.reason, state.gave_up.message)
    if state.trouble:
        return Finding(kind, UNKNOWN, state.trouble.reason, state.trouble.message)
    return Finding(kind, UNKNOWN, "Preparing" if state.running else "NotPrepared")


def _suspended(state: State) -> Finding:
    if state.run.spec.suspend and _ended(state) is None:
        return Finding("Suspended", TRUE, "Suspended", "spec.suspend is true")
    return Finding("Suspended", FALSE, "NotSuspended")


def _progress_available(state: State) -> Finding:
    attempt = progress.running_trainer(state.status.attempts)
    pods = podinfo.of_job(state.observed.pods, attempt.job) if attempt else ()
    pod = progress.rank_zero(attempt, pods) if attempt else None
    before = find(state.old.conditions, "ProgressAvailable")
    ended = any(podinfo.index(each) == 0 and podinfo.phase(each) in ("Succeeded", "Failed") for each in pods)
    finding = progress.finding(pod, state.observed.progress)
    # Training is ending: the next status says how. Or the operator has just started: the first answer says what is new.
    nothing_new = ended if pod is None else finding.reason == progress.NOT_ASKED
    if nothing_new and before and before.reason != progress.NOT_TRAINING:
        return Finding(before.type, before.status, before.reason, before.message)
    return finding


def _timed(output: OutputStatus | None, now: str) -> OutputStatus | None:
    """The output, with the time of a copy that has none yet."""
    if output is None or output.published is None or output.published.time is not None:
        return output
    return OutputStatus(published=output.published.model_copy(update={"time": now}))


def status(state: State) -> FineTuneJobStatus:
    """The whole new status."""
    generation = state.run.resource["metadata"].get("generation")
    known = state.status
    evaluation = known.evaluation
    completed = state.old.completion_time or rfc3339(state.now)
    update = {
        "phase": phase(state),
        "observed_generation": generation,
        "conditions": merge(state.old.conditions, findings(state), generation, state.now),
        "score": scores.score(evaluation) if evaluation else None,
        "improvement": scores.improvement(evaluation) if evaluation else None,
        "gate": gate.gate_status(state.run, known),
        **costs.of_status(state),
        "completion_time": completed if _ended(state) or _complete(state) else None,
        "output": _timed(known.output, rfc3339(state.now)),
    }
    if is_withdrawn(state.run, known) and state.running is None:  # the same URI, set again, is published again
        update |= {"published_spec": None, "not_published": None}
    return known.model_copy(update=update)
