"""The Events of a FineTuneJob, from the difference between its old and its new status."""

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, FineTuneJobStatus, Phase
from hone.api.gate import GateVerdict
from hone.core.conditions import find, is_true
from hone.core.events import became_true, normal, warning
from hone.core.finetunejob.policies import upstream
from hone.core.finetunejob.policies.dependencies import STALLED_REASONS
from hone.core.finetunejob.run import FINISH, PUBLISH
from hone.core.plan import Event
from hone.core.pods import Trouble

_QUIET = (upstream.WAITING, *STALLED_REASONS)
"""Reasons without an Event: no action is needed, or the job is Stalled, which has its own."""


_AFTER_EDIT = {FINISH: "the model is scored by the new one", PUBLISH: "the model is published by the new one"}
"""What follows an edit that replaces an attempt, where it is not a preparation."""


_DECIDED = {GateVerdict.PASS: "Passed", GateVerdict.FAIL: "Failed", GateVerdict.INCONCLUSIVE: "Inconclusive"}


def events(old: FineTuneJobStatus, new: FineTuneJobStatus, trouble: Trouble | None) -> tuple[Event, ...]:
    """What happened between the two, oldest first. Trouble is reported once for each reason.

    The start of an attempt has no Event: status lists the attempts, and Kubernetes reports the creation of their pods.
    """
    happened = _attempts(old, new)
    if trouble and trouble.reason not in _QUIET and not _was_shown(old, trouble):
        happened.append(warning(trouble.reason, trouble.message))
    if new.plan and not old.plan:
        happened += [warning("PlanWarning", text) for text in (*new.plan.warnings, *_of_gate(new))]
    if (rising := _validation_warning(new)) and not _validation_warning(old):
        happened.append(warning("ValidationLossRising", rising))
    if became_true(old.conditions, new.conditions, "Suspended"):
        happened.append(normal("Suspended", "spec.suspend is true"))
    elif is_true(old.conditions, "Suspended") and not is_true(new.conditions, "Suspended"):
        happened.append(normal("Resumed", "spec.suspend is false"))
    if _was_scored(old, new):
        happened.append(_completed(old, new))
    happened += _decided(old, new)
    happened += _published(old, new)
    failed = became_true(old.conditions, new.conditions, "Failed")
    if failed:
        happened.append(warning(f"Failed{failed.reason}", failed.message))
    elif stalled := became_true(old.conditions, new.conditions, "Stalled"):
        happened.append(warning(stalled.reason, stalled.message))
    return tuple(happened)


def _validation_warning(status: FineTuneJobStatus) -> str | None:
    return status.progress.warning if status.progress else None


def _was_scored(old: FineTuneJobStatus, new: FineTuneJobStatus) -> bool:
    """Whether the model is complete from now on, or another scoring of it has ended."""
    if not is_true(new.conditions, "Complete"):
        return False
    is_first = not is_true(old.conditions, "Complete")
    return is_first or (old.phase == Phase.FINISHING and new.phase in (Phase.SUCCEEDED, Phase.PUBLISHING))


def _of_gate(new: FineTuneJobStatus) -> list[str]:
    """What should be changed about the gate: sentences that begin with its field."""
    expected = (new.gate.expectation if new.gate else None) or []
    return [text for text in expected if text.startswith("spec.gate")]


def _decided(old: FineTuneJobStatus, new: FineTuneJobStatus) -> list[Event]:
    """What the gate decided, if that is new: also after it was edited."""
    if new.gate is None or new.gate.decision is None or not is_true(new.conditions, "Complete"):
        return []
    before = old.gate if is_true(old.conditions, "Complete") else None
    if before and (before.decision, before.message) == (new.gate.decision, new.gate.message):
        return []
    write = normal if new.gate.decision == GateVerdict.PASS else warning
    return [write(f"Gate{_DECIDED[new.gate.decision]}", new.gate.message)]


def _published(old: FineTuneJobStatus, new: FineTuneJobStatus) -> list[Event]:
    """The end of an attempt to publish the model that is not to be repeated."""
    if new.not_published and new.not_published != old.not_published:
        return [warning("NotPublished", f"the model is complete, but was not published: {new.not_published}")]
    copy = new.output.published if new.output else None
    if copy is None or (old.output and old.output.published == copy):
        return []
    return [normal("Published", f"{copy.uri}, {copy.revision or copy.digest}")]


def _completed(old: FineTuneJobStatus, new: FineTuneJobStatus) -> Event:
    """The end of a job that has a tuned model, or of another scoring of it."""
    if new.not_scored:
        return warning("NotScored", f"the model is complete, but was not scored: {new.not_scored}")
    scores = f"score {new.score}, improvement over the base {new.improvement}" if new.score else "no scores"
    return normal("ScoredAgain" if is_true(old.conditions, "Complete") else "Succeeded", scores)


def _was_shown(old: FineTuneJobStatus, trouble: Trouble) -> bool:
    before = find(old.conditions, "Reconciling")
    return before is not None and before.reason == trouble.reason


def _attempts(old: FineTuneJobStatus, new: FineTuneJobStatus) -> list[Event]:
    before = {(attempt.step, attempt.number): attempt for attempt in old.attempts}
    happened = []
    for attempt in new.attempts:
        was = before.get((attempt.step, attempt.number))
        if new_changes := [text for text in attempt.changes or [] if text not in ((was and was.changes) or [])]:
            words = "; ".join(new_changes)
            happened.append(normal("TrainingAdjusted", f"{attempt.step}, attempt {attempt.number}: {words}"))
        has_own_event = attempt.step in (FINISH, PUBLISH)
        is_last = has_own_event and attempt.result == AttemptResult.SUCCEEDED
        if attempt.result != (was.result if was else AttemptResult.RUNNING) and not is_last:
            happened.append(_ended(attempt))
    return happened


def _ended(attempt: AttemptStatus) -> Event:
    name = f"{attempt.step}, attempt {attempt.number}"
    if attempt.failure:
        hint = f" ({attempt.failure.hint})" if attempt.failure.hint else ""
        return warning(attempt.failure.failure_class, f"{name}: {attempt.failure.message}{hint}")
    if attempt.result == AttemptResult.SUCCEEDED:
        return normal(f"{attempt.step.title()}Succeeded", name)
    if attempt.result == AttemptResult.REPLACED:
        return normal(
            "SpecChanged", f"{name}: the spec was edited; {_AFTER_EDIT.get(attempt.step, 'it is prepared again')}"
        )
    return normal("AttemptStopped", f"{name}: stopped after saving a checkpoint")
