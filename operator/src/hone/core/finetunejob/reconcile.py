"""Reconcile a FineTuneJob: every phase each time, then one status and the Events that its change makes."""

from datetime import datetime

from pydantic import ValidationError

from hone.api.finetunejob_status import FineTuneJobStatus, Phase
from hone.core import refusal
from hone.core.conditions import Finding, is_true, kstatus, merge
from hone.core.finetunejob import snapshot
from hone.core.finetunejob.phases.advance import advance
from hone.core.finetunejob.phases.read_progress import read_progress
from hone.core.finetunejob.phases.record_outcome import settle
from hone.core.finetunejob.phases.stop_conditions import interrupt
from hone.core.finetunejob.phases.unreachable_nodes import watch_nodes
from hone.core.finetunejob.policies import upstream
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.state import State
from hone.core.finetunejob.status.events import events
from hone.core.finetunejob.status.refused import observed_by
from hone.core.finetunejob.status.status import is_finished, status
from hone.core.kind import Fetched
from hone.core.observed import Object, Observed, Ref
from hone.core.plan import Plan
from hone.core.settings import Settings

CONFLICT_SECONDS = 60.0
"""How soon to look whether a foreign object has gone: its events do not reach us."""


def refs(resource: Object, fetched: Fetched, settings: Settings) -> tuple[Ref, ...]:
    """What to read; see `Kind.refs`."""
    try:
        run = Run.of(resource, settings)
    except ValidationError:
        return ()
    return () if idle(resource) else snapshot.refs(run, _old(resource), fetched)


def idle(resource: Object) -> bool:
    """Whether nothing is due: the job is being deleted, or has ended and its spec was not edited since."""
    meta, old = resource["metadata"], _old(resource)
    return "deletionTimestamp" in meta or (is_finished(old) and old.observed_generation == meta.get("generation"))


def reconcile(resource: Object, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """What to do; see `Kind.reconcile`."""
    if idle(resource):
        return Plan()
    old = _old(resource)
    try:
        run = Run.of(resource, settings)
    except ValidationError as error:
        return _stalled(resource, "InvalidSpec", refusal.spec_fault(error), now)
    if is_finished(old) and not _may_begin_anew(run, old):
        return _seen(resource, old, now)
    state = State.of(run, observed, now, old)
    if taken := snapshot.foreign(state):
        return _stalled(resource, "NameConflict", refusal.name_taken(taken), now, CONFLICT_SECONDS)
    settle(state)
    interrupt(state)
    watch_nodes(state)
    read_progress(state)
    advance(state)
    new = status(state)
    return Plan(
        create=tuple(state.create),
        apply=(*state.apply, *upstream.give_back_dropped(run, observed, state.models, is_finished(new))),
        delete=tuple(state.delete),
        status=_changed(resource, new),
        events=events(old, new, state.trouble),
        requeue_after=min(state.requeue) if state.requeue and not is_finished(new) else None,
    )


def refused(resource: Object, plan: Plan, target: str, words: str, now: datetime) -> Plan:
    """The Plan after a write was refused for good; see `Kind.refused`."""
    return _stalled(resource, "Refused", refusal.refused(target, words), now, known=observed_by(_old(resource), plan))


def _old(resource: Object) -> FineTuneJobStatus:
    return FineTuneJobStatus.from_dict(resource.get("status") or {})


def _may_begin_anew(run: Run, old: FineTuneJobStatus) -> bool:
    """Whether a job that failed before training was given another spec."""
    return is_true(old.conditions, "Failed") and old.start_time is None and old.prepared_spec != run.spec_digest


def _seen(resource: Object, old: FineTuneJobStatus, now: datetime) -> Plan:
    """A finished job that was edited: nothing changes but that the edit was seen."""
    generation = resource["metadata"].get("generation")
    found = [Finding(c.type, c.status, c.reason, c.message) for c in old.conditions]
    seen = {"observed_generation": generation, "conditions": merge(old.conditions, found, generation, now)}
    return Plan(status=_changed(resource, old.model_copy(update=seen)))


def _stalled(
    resource: Object,
    reason: str,
    message: str,
    now: datetime,
    requeue: float | None = None,
    known: FineTuneJobStatus | None = None,
) -> Plan:
    """A job that cannot go on until somebody does something; what is known of it stays."""
    old, generation = _old(resource), resource["metadata"].get("generation")
    known = known or old
    said = kstatus("Stalled", reason, message)
    kept = [
        Finding(c.type, c.status, c.reason, c.message)
        for c in known.conditions
        if c.type not in {finding.type for finding in said}
    ]
    new = known.model_copy(
        update={
            "phase": known.phase or Phase.PENDING,
            # A job that failed and was mended would pass for one with nothing due.
            "observed_generation": old.observed_generation if requeue and is_finished(known) else generation,
            "conditions": merge(old.conditions, [*kept, *said], generation, now),
        }
    )
    return Plan(
        status=_changed(resource, new),
        events=events(old, new, None),
        requeue_after=requeue,
    )


def _changed(resource: Object, new: FineTuneJobStatus) -> Object | None:
    """The new status, or None where it is the one that stands there."""
    made = new.to_dict()
    return None if made == (resource.get("status") or {}) else made
