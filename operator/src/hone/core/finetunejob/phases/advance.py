"""Phase 3: the next attempt, once nothing runs and nothing stands against it."""

from hone.api.finetunejob_status import AttemptResult
from hone.core.children import ref_of
from hone.core.finetunejob.policies.attempt import attempt
from hone.core.finetunejob.policies.dependencies import missing
from hone.core.finetunejob.policies.retry import backoff, give_up, quick_ends
from hone.core.finetunejob.policies.upstream import GONE, follow, may_end
from hone.core.finetunejob.resources.children import needed
from hone.core.finetunejob.resources.jobs import job
from hone.core.finetunejob.resources.runconfig import config_map_name
from hone.core.finetunejob.run import Step
from hone.core.finetunejob.snapshot import are_known
from hone.core.finetunejob.state import State
from hone.core.plan import Apply
from hone.core.times import rfc3339, seconds_since

LOOK_AGAIN_SECONDS = 10.0
"""How soon to look for what the user has yet to make, and for pods that have yet to end."""


def advance(state: State) -> None:
    """Make the next attempt of the first step that is not done, or give up."""
    step = state.step
    if state.running or step is None:
        return
    wait = _after_failure(state, step)
    if state.gave_up and not may_end(state.run, state.observed):
        state.gave_up = None
        state.requeue.append(0.0)
        return
    if state.gave_up or state.run.spec.suspend:
        return
    if state.live_pods:
        state.requeue.append(LOOK_AGAIN_SECONDS)  # they still write to the volumes
    elif wait > 0:
        state.requeue.append(wait)
    elif not are_known(state):
        state.requeue.append(0.0)
    elif not _follow(state):
        if state.trouble and state.trouble.reason == GONE:
            state.requeue.append(LOOK_AGAIN_SECONDS)
    elif trouble := missing(state.run, state.observed, step):
        state.trouble = trouble
        state.requeue.append(LOOK_AGAIN_SECONDS)
    else:
        _start(state, step)


def _after_failure(state: State, step: Step) -> float:
    """Give up after the last failure, or the seconds to wait until the next attempt."""
    last = state.last(step)
    if last is None or last.failure is None or last.result != AttemptResult.FAILED or state.prepared_spec is None:
        return 0.0
    state.gave_up = give_up(step, last.failure, state.failures, state.run.retry.limit)
    wait = backoff(step, last.failure, state.failures, quick_ends(step, state.attempts))
    return wait - seconds_since(last.end_time, state.now)


def _start(state: State, step: Step) -> None:
    run, number = state.run, state.next_number(step)
    if state.run_config is None:
        state.run_config = config_map_name(run)
    _ensure(state, step, state.run_config)
    state.create.append(job(run, step, attempt(step, number, state.failures), state.run_config))
    state.begin(step, number, rfc3339(state.now))
    if step == Step.PREPARE:
        state.prepared_spec = run.spec_digest
    state.requeue.append(float(run.spec.start_deadline_seconds))


def _ensure(state: State, step: Step, config: str) -> None:
    """Plan whatever the step needs and does not have. What is there is never changed."""
    for child in needed(state.run, step, config):
        if state.observed.get(ref_of(child)) is not None:
            continue
        if child["kind"] == "Service":
            state.apply.append(Apply(child))
        else:
            state.create.append(child)


def _follow(state: State) -> bool:
    """See to the models of other jobs. Returns whether this job may start."""
    known = None if state.prepared_spec is None else state.models
    upstream = follow(state.run, state.observed, known)
    state.models = upstream.models
    state.trouble = upstream.trouble or state.trouble
    state.apply += upstream.apply
    if not upstream.ready and not upstream.trouble:
        state.requeue.append(0.0)
    return upstream.ready
