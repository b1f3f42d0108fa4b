"""The objects that each step needs beside its Job, and everything that has to be read before one is made."""

from hone.api.finetunejob_status import AttemptResult, FineTuneJobStatus
from hone.core.children import Standing, ref_of, standing
from hone.core.finetunejob import claims, upstream
from hone.core.finetunejob.dependencies import dependencies
from hone.core.finetunejob.failure import job_condition
from hone.core.finetunejob.run import Run, Step
from hone.core.finetunejob.runconfig import config_map, config_map_name
from hone.core.finetunejob.service import service
from hone.core.finetunejob.state import State
from hone.core.kind import Fetched
from hone.core.observed import Object, Ref
from hone.core.plan import Apply


def needed(run: Run, step: Step, config: str) -> list[Object]:
    """The objects that the step's Job needs."""
    found = [config_map(run, config)]
    if run.workspace.claim_name is None:
        found.append(claims.workspace_claim(run))
    if step == Step.TRAIN and run.compute.nodes > 1:
        found.append(service(run))
    if step == Step.FINISH:
        found.append(claims.output_claim(run))
    return found


def child_refs(run: Run, status: FineTuneJobStatus) -> set[Ref]:
    """Every name that the next attempt may use, whichever step it belongs to."""
    found = {run.job_ref(step, _next(status, step)) for step in Step}
    for config in {status.run_config or config_map_name(run), config_map_name(run)}:
        found |= {ref_of(child) for step in Step for child in needed(run, step, config)}
    return found


def _next(status: FineTuneJobStatus, step: Step) -> int:
    return max((attempt.number for attempt in status.attempts if attempt.step == step), default=0) + 1


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


def ensure(state: State, step: Step, config: str) -> None:
    """Plan whatever the step needs and does not have. What is there is never changed."""
    for child in needed(state.run, step, config):
        if state.observed.get(ref_of(child)) is not None:
            continue
        if child["kind"] == "Service":
            state.apply.append(Apply(child))
        else:
            state.create.append(child)
