"""The objects to read before a decision, and whether all of them have been read."""

from collections.abc import Sequence

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, FineTuneJobStatus
from hone.core.children import Standing, Write, standing
from hone.core.finetunejob.policies import upstream
from hone.core.finetunejob.policies.dependencies import dependencies
from hone.core.finetunejob.policies.failure import job_condition
from hone.core.finetunejob.policies.sharing import cache_refs
from hone.core.finetunejob.policies.superseded import superseded
from hone.core.finetunejob.resources.children import CHILD_TYPES, child_refs
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.state import State
from hone.core.finetunejob.steps import FIRST, PUBLISHING, STEPS
from hone.core.finetunejob.steps.step import Step, last_attempt
from hone.core.kind import Fetched
from hone.core.network import POLICY, has_unwanted
from hone.core.observed import Object, Observed, Ref
from hone.core.plan import Plan
from hone.core.pods import of_job, phase


def refs(run: Run, status: FineTuneJobStatus, fetched: Fetched) -> tuple[Ref, ...]:
    """What to read: only Jobs while an attempt runs; once it has ended, everything that the next one needs."""
    jobs = _running(run, status)
    old = superseded(run, status)
    if has_unwanted(run.settings.network_policies, status.network_policy):
        old |= {POLICY.ref(name) for name in run.network_policies}
    if jobs and not all(ref in fetched and has_ended(fetched[ref]) for ref in jobs):
        return tuple(sorted(jobs | old))
    steps = [step for step in STEPS.values() if step is not FIRST or _may_prepare(run, status, fetched)]
    return tuple(sorted(jobs | old | _refs_of_next_attempt(run, status, status.prepared_spec is None, fetched, steps)))


def _may_prepare(run: Run, status: FineTuneJobStatus, fetched: Fetched) -> bool:
    """Whether an attempt at prepare may begin in this reconcile; it alone reads the user's ConfigMaps."""
    attempt = last_attempt(status, FIRST.name)
    job = fetched.get(run.job_ref(attempt.step, attempt.number)) if attempt else None
    is_done = FIRST.is_done(run, status) or (job is not None and job_condition(job, "Complete") is not None)
    return not is_done or status.prepared_spec != run.spec_digest


def _refs_of_next_attempt(
    run: Run, status: FineTuneJobStatus, waits: bool, fetched: Fetched, steps: Sequence[Step]
) -> set[Ref]:
    """The objects that the next attempt depends on.

    While one of the jobs whose models are read has none yet, other objects of the spec are not read: no attempt begins
    then, and a job that waits would cost a read of its ConfigMap whenever something wakes it.

    Args:
        run: the run.
        status: its status as it was read.
        waits: whether the run may still wait for other jobs.
        fetched: what has been read so far.
        steps: the steps that it may be an attempt at.
    """
    others = upstream.refs(run, fetched) if waits else set()
    if not others <= fetched.keys():
        return others  # Along a long chain, the rest would be named once for each of its jobs.
    refs = child_refs(run, status) | others | upstream.held_refs(run) | cache_refs(run)
    if waits and upstream.is_unfinished(run, fetched):
        return refs
    return refs | {each.ref for step in steps for each in dependencies(run, step)}


def has_ended(job: Object | None) -> bool:
    """Whether a Job is over or does not exist."""
    return job is None or bool(job_condition(job, "Complete") or job_condition(job, "Failed"))


def are_known(state: State) -> bool:
    """Whether everything that an attempt needs was read."""
    run, fetched = state.run, state.observed.objects
    steps = [state.step] if state.step else []
    refs = _refs_of_next_attempt(run, state.old, state.status.prepared_spec is None, fetched, steps)
    if state.step:
        refs.add(run.job_ref(state.step.name, state.next_number(state.step)))
    return refs <= set(fetched)


def foreign(state: State) -> Ref | None:
    """A child's name that belongs to a foreign object, or None."""
    run, fetched = state.run, set(state.observed.objects)
    refs = {run.job_ref(attempt.step, attempt.number) for attempt in state.status.attempts}
    if not fetched <= refs:  # while an attempt runs, only its Job was read, and no other name matters
        refs |= child_refs(run, state.old)
    refs -= superseded(run, state.old)  # they are only to be removed
    for ref in sorted(refs & fetched):
        if standing(run.resource, state.observed.get(ref)) not in (Standing.ABSENT, Standing.OURS):
            return ref
    return None


def may_lack(run: Run, ref: Ref) -> bool:
    """Whether an object may count as absent because no watch has shown it; see `Kind.may_lack`.

    What we create once may: creating it again meets the one that exists. The Job of a running attempt may not: without
    it, the attempt would count as lost. Nor may what is applied, or what others name, or the model to be published.
    """
    status = run.old_status
    created = any(
        (child.api_version, child.kind, child.write) == (ref.api_version, ref.kind, Write.CREATE_ONCE)
        for child in CHILD_TYPES
    )
    return created and _is_child_name(run, ref) and ref not in _running(run, status) | _published_from(run, status)


def is_drastic(run: Run, observed: Observed, plan: Plan) -> bool:
    """Whether a Plan must be made from what the API server has, not what watches have shown; see `Kind.is_drastic`.

    So it is before a failure is recorded, before an attempt follows one that did not succeed (its pods may live on),
    and before a result is taken from fewer pods than the Job counts. A run where all goes well needs none of that.
    """
    if plan.status is None:
        return False
    old = run.old_status.attempts
    before = {(attempt.step, attempt.number): attempt.result for attempt in old}
    new = FineTuneJobStatus.from_dict(plan.status).attempts
    begins = any((attempt.step, attempt.number) not in before for attempt in new)
    ended = [attempt for attempt in new if before.get((attempt.step, attempt.number)) != attempt.result]
    return (
        (begins and bool(old) and old[-1].result not in (AttemptResult.RUNNING, AttemptResult.SUCCEEDED))
        or any(attempt.result == AttemptResult.FAILED for attempt in ended)
        or any(_lacks_pods(run, observed, each) for each in ended if each.result == AttemptResult.SUCCEEDED)
    )


def _lacks_pods(run: Run, observed: Observed, attempt: AttemptStatus) -> bool:
    """Whether the attempt's Job counts more pods that succeeded than were observed."""
    job = observed.objects.get(run.job_ref(attempt.step, attempt.number)) or {}
    pods = of_job(observed.pods, attempt.job)
    return int((job.get("status") or {}).get("succeeded") or 0) > len(
        [pod for pod in pods if phase(pod) == "Succeeded"]
    )


def _is_child_name(run: Run, ref: Ref) -> bool:
    """Whether the name follows from the run's uid."""
    return ref.name == run.base_name or ref.name.startswith(f"{run.base_name}-")


def _published_from(run: Run, status: FineTuneJobStatus) -> set[Ref]:
    """What the next attempt at publish depends on, once there is a model."""
    if run.publish_digest is None or status.artifact is None:
        return set()
    return {each.ref for each in dependencies(run, PUBLISHING)}


def _running(run: Run, status: FineTuneJobStatus) -> set[Ref]:
    """The Jobs of running attempts."""
    return {run.job_ref(a.step, a.number) for a in status.attempts if a.result == AttemptResult.RUNNING}
