"""Begins the next attempt of the first step that is not done, unless something blocks it."""

from hone.contract.runconfig import Attempt
from hone.core.children import Child
from hone.core.finetunejob.blockers import Blocked, first_blocker
from hone.core.finetunejob.policies.attempt import attempt
from hone.core.finetunejob.policies.budget import seconds_left
from hone.core.finetunejob.policies.record import record
from hone.core.finetunejob.policies.sharing import shared_volumes
from hone.core.finetunejob.resources.children import JOB, needed
from hone.core.finetunejob.resources.jobs import job
from hone.core.finetunejob.resources.runconfig import config_map_name
from hone.core.finetunejob.state import State
from hone.core.finetunejob.steps import FIRST
from hone.core.finetunejob.steps.publish import publication
from hone.core.finetunejob.steps.step import Step
from hone.core.finetunejob.steps.train import TRAIN_STEP
from hone.core.network import enforcement
from hone.core.times import rfc3339


def advance(state: State) -> None:
    """Begin the next attempt, or record what blocks it."""
    step = state.step
    if state.running or step is None:
        return
    if blocked := first_blocker(state):
        _wait(state, step, blocked)
    else:
        _start(state, step)


def _wait(state: State, step: Step, blocked: Blocked) -> None:
    if blocked.gave_up and step.end_without(state.status, f"{blocked.gave_up.reason}: {blocked.gave_up.message}"):
        return
    state.gave_up = blocked.gave_up
    state.trouble = blocked.trouble or state.trouble
    state.apply += blocked.apply
    if blocked.models is not None:
        state.status.models = blocked.models or None
    if blocked.gpu is not None:
        state.status.gpu = blocked.gpu
    if blocked.cache is not None:
        state.status.cache_claim = blocked.cache or None
    if blocked.requeue is not None:
        state.requeue.append(blocked.requeue)


def _start(state: State, step: Step) -> None:
    run, number = state.run, state.next_number(step)
    config = state.status.run_config = state.status.run_config or config_map_name(run)
    for row in needed(run, step.name):
        if state.observed.get(row.ref(run, config)) is None:  # an object that exists is never changed
            state.write(row.child(run, config))
    planned = run.planned(state.status.plan)
    edited = run.evaluation if state.status.prepared_spec != run.spec_digest else None
    of_this = attempt(
        step.name,
        number,
        state.status.failures,
        edited,
        publication(run, state.status),
        record(planned, state.status),
        seconds_left(planned, state.status),
        shared_volumes(run, state.observed, state.now),
    )
    state.write(Child(job(planned, step, of_this, config), JOB.write))
    state.status.network_policy = enforcement(run.settings.network_policies)
    state.begin(step, number, rfc3339(state.now), step.digest(run))
    if step is FIRST:
        if state.status.prepared_spec != run.spec_digest:
            # Its pods may have what the API server refuses: better told now than after hours of preparation.
            state.rehearse.append(job(planned, TRAIN_STEP, Attempt(number=1), config))
        state.status.prepared_spec = run.spec_digest
    state.requeue.append(float(run.spec.start_deadline_seconds))
