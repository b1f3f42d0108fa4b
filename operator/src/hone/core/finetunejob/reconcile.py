"""Reconcile a FineTuneJob: every phase each time, then one status and the Events of its changes."""

from collections.abc import Callable
from datetime import datetime

from hone.api.finetunejob_status import FineTuneJobStatus, Phase
from hone.core import refusal
from hone.core.conditions import is_true, merge
from hone.core.finetunejob import snapshot
from hone.core.finetunejob.phases.advance import advance
from hone.core.finetunejob.phases.read_progress import read_progress
from hone.core.finetunejob.phases.record_outcome import record_outcome
from hone.core.finetunejob.phases.remove_policy import remove_policy
from hone.core.finetunejob.phases.remove_superseded import remove_superseded
from hone.core.finetunejob.phases.stop_conditions import stop_if_due
from hone.core.finetunejob.phases.unreachable_nodes import check_nodes
from hone.core.finetunejob.policies import image_volumes, upstream
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.state import State
from hone.core.finetunejob.status.events import events
from hone.core.finetunejob.status.gate import gate_status, promotable
from hone.core.finetunejob.status.refused import observed_by
from hone.core.finetunejob.status.status import is_finished, status
from hone.core.finetunejob.steps import next_step, publish
from hone.core.kind import Fetched
from hone.core.observed import Object, Observed, Ref
from hone.core.plan import Plan
from hone.core.status import CONFLICT_SECONDS, changed, generation, stopped, unchanged

PHASES: tuple[Callable[[State], None], ...] = (
    record_outcome,
    remove_superseded,
    remove_policy,
    stop_if_due,
    check_nodes,
    read_progress,
    advance,
)
"""The phases of a reconcile; none of them is ever skipped."""


def refs(run: Run, fetched: Fetched) -> tuple[Ref, ...]:
    """What to read; see `Kind.refs`."""
    if run.fault or _is_idle(run.resource, run.old_status):
        return ()
    return snapshot.refs(run, run.old_status, fetched)


def idle(resource: Object) -> bool:
    """Whether nothing is due: the job is being deleted, or has ended and its spec was not edited since."""
    return _is_idle(resource, _old(resource))


def _is_idle(resource: Object, old: FineTuneJobStatus) -> bool:
    meta = resource["metadata"]
    return "deletionTimestamp" in meta or (is_finished(old) and old.observed_generation == meta.get("generation"))


def reconcile(run: Run, observed: Observed, now: datetime) -> Plan:
    """What to do; see `Kind.reconcile`."""
    resource = run.resource
    if idle(resource):
        return Plan()
    old = _old(resource)
    if run.fault:
        return _stalled(resource, "InvalidSpec", refusal.spec_fault(run.fault), now)
    if is_finished(old) and not _may_begin_again(run, old):
        return _seen(run, old, now)
    state = State.of(run, observed, now, old)
    if taken := snapshot.foreign(state):
        return _stalled(resource, "NameConflict", refusal.name_taken(taken), now, CONFLICT_SECONDS)
    for phase in PHASES:
        phase(state)
    new = status(state)
    return Plan(
        rehearse=tuple(state.rehearse),
        create=tuple(state.create),
        apply=(*state.apply, *upstream.give_back_dropped(run, observed, state.models, is_finished(new))),
        delete=tuple(state.delete),
        status=changed(resource, new),
        events=events(old, new, state.trouble),
        requeue_after=min(state.requeue) if state.requeue and not is_finished(new) else None,
    )


def refused(resource: Object, plan: Plan, target: str, words: str, now: datetime) -> Plan:
    """The Plan after a write was refused for good; see `Kind.refused`."""
    message = refusal.refused(target, image_volumes.refusal(plan, words))
    return _stalled(resource, "Refused", message, now, known=observed_by(_old(resource), plan))


def _old(resource: Object) -> FineTuneJobStatus:
    return FineTuneJobStatus.from_dict(resource.get("status") or {})


def _may_begin_again(run: Run, old: FineTuneJobStatus) -> bool:
    """Whether a job that failed before training has a new spec, or one that is complete has something to do again."""
    if is_true(old.conditions, "Complete"):
        return next_step(run, old) is not None or publish.is_withdrawn(run, old)
    return is_true(old.conditions, "Failed") and old.start_time is None and old.prepared_spec != run.spec_digest


def _seen(run: Run, old: FineTuneJobStatus, now: datetime) -> Plan:
    """A finished job that was edited: the observed generation changes, and the gate is decided again."""
    resource = run.resource
    number, complete = generation(resource), is_true(old.conditions, "Complete")
    decided = promotable(run, old, complete, is_true(old.conditions, "Failed"))
    shown = [decided if each.type == decided.type else each for each in unchanged(old.conditions)]
    update = {
        "observed_generation": number,
        "conditions": merge(old.conditions, shown, number, now),
        "gate": gate_status(run, old),
    }
    new = old.model_copy(update=update)
    return Plan(status=changed(resource, new), events=events(old, new, None))


def _stalled(
    resource: Object,
    reason: str,
    message: str,
    now: datetime,
    requeue: float | None = None,
    known: FineTuneJobStatus | None = None,
) -> Plan:
    """A job that cannot continue without an action of the user; what is known about it stays."""
    old = _old(resource)
    known = known or old
    update = {
        "phase": known.phase or Phase.PENDING,
        # With the new generation, a failed job that was fixed would count as idle.
        "observed_generation": old.observed_generation if requeue and is_finished(known) else generation(resource),
        "conditions": stopped(resource, old.conditions, known.conditions, "Stalled", reason, message, now),
    }
    new = known.model_copy(update=update)
    return Plan(status=changed(resource, new), events=events(old, new, None), requeue_after=requeue)
