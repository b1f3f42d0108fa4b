"""What is read of the cluster before a decision, and whether all of it has been read."""

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
    """What to read: while an attempt runs only its Job; once it has ended, all that the next one needs."""
    jobs = {run.job_ref(a.step, a.number) for a in status.attempts if a.result == AttemptResult.RUNNING}
    if jobs and not all(ref in fetched and has_ended(fetched[ref]) for ref in jobs):
        return tuple(sorted(jobs))
    wanted = jobs | child_refs(run, status) | {each.ref for each in dependencies(run)}
    return tuple(sorted(wanted | (upstream.refs(run, fetched) if status.prepared_spec is None else set())))


def has_ended(job: Object | None) -> bool:
    """Whether a Job is over or does not exist."""
    return job is None or bool(job_condition(job, "Complete") or job_condition(job, "Failed"))


def are_known(state: State) -> bool:
    """Whether everything that an attempt needs was read."""
    run = state.run
    wanted = child_refs(run, state.old) | {each.ref for each in dependencies(run)}
    if state.step:
        wanted.add(run.job_ref(state.step, state.next_number(state.step)))
    if state.prepared_spec is None:
        wanted |= upstream.refs(run, state.observed.objects)
    return wanted <= set(state.observed.objects)


def foreign(state: State) -> Ref | None:
    """A child's name that an object of someone else has, or None."""
    names = child_refs(state.run, state.old) | {
        state.run.job_ref(attempt.step, attempt.number) for attempt in state.attempts
    }
    for ref in sorted(names & set(state.observed.objects)):
        if standing(state.run.resource, state.observed.get(ref)) not in (Standing.ABSENT, Standing.OURS):
            return ref
    return None
