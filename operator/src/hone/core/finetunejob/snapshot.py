"""The objects to read before a decision, and whether all of them have been read."""

from hone.api.finetunejob_status import AttemptResult, FineTuneJobStatus
from hone.core.children import Standing, standing
from hone.core.finetunejob.policies import upstream
from hone.core.finetunejob.policies.dependencies import dependencies
from hone.core.finetunejob.policies.failure import job_condition
from hone.core.finetunejob.resources.children import child_refs
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.state import State
from hone.core.kind import Fetched
from hone.core.observed import Object, Ref


def refs(run: Run, status: FineTuneJobStatus, fetched: Fetched) -> tuple[Ref, ...]:
    """What to read: only the Job while an attempt runs; once it has ended, everything that the next one needs."""
    jobs = {run.job_ref(a.step, a.number) for a in status.attempts if a.result == AttemptResult.RUNNING}
    if jobs and not all(ref in fetched and has_ended(fetched[ref]) for ref in jobs):
        return tuple(sorted(jobs))
    return tuple(sorted(jobs | _refs_of_next_attempt(run, status, status.prepared_spec is None, fetched)))


def _refs_of_next_attempt(run: Run, status: FineTuneJobStatus, waits: bool, fetched: Fetched) -> set[Ref]:
    """The objects that the next attempt depends on.

    Args:
        run: the run.
        status: its status as it was read.
        waits: whether the run may still wait for other jobs.
        fetched: what has been read so far.
    """
    refs = child_refs(run, status) | {each.ref for each in dependencies(run)} | upstream.held_refs(run)
    return refs | upstream.refs(run, fetched) if waits else refs


def has_ended(job: Object | None) -> bool:
    """Whether a Job is over or does not exist."""
    return job is None or bool(job_condition(job, "Complete") or job_condition(job, "Failed"))


def are_known(state: State) -> bool:
    """Whether everything that an attempt needs was read."""
    run, fetched = state.run, state.observed.objects
    refs = _refs_of_next_attempt(run, state.old, state.status.prepared_spec is None, fetched)
    if state.step:
        refs.add(run.job_ref(state.step.name, state.next_number(state.step)))
    return refs <= set(fetched)


def foreign(state: State) -> Ref | None:
    """A child's name that belongs to a foreign object, or None."""
    run, fetched = state.run, set(state.observed.objects)
    refs = {run.job_ref(attempt.step, attempt.number) for attempt in state.status.attempts}
    if not fetched <= refs:  # while an attempt runs, only its Job was read, and no other name matters
        refs |= child_refs(run, state.old)
    for ref in sorted(refs & fetched):
        if standing(run.resource, state.observed.get(ref)) not in (Standing.ABSENT, Standing.OURS):
            return ref
    return None
