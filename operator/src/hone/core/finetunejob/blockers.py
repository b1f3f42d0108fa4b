"""Reasons not to begin the next attempt: a tuple of functions, called in order until one returns a reason."""

from collections.abc import Callable
from dataclasses import dataclass

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, FoundModel, GpuStatus
from hone.core.allowlists import not_allowed
from hone.core.finetunejob.policies import budget
from hone.core.finetunejob.policies.dependencies import missing
from hone.core.finetunejob.policies.gpus import gpus_of_nodes
from hone.core.finetunejob.policies.retry import GiveUp, backoff, give_up, quick_ends
from hone.core.finetunejob.policies.sharing import cache_of_namespace
from hone.core.finetunejob.policies.upstream import GONE, follow, may_end
from hone.core.finetunejob.run import TRAIN
from hone.core.finetunejob.snapshot import are_known
from hone.core.finetunejob.sources import images as mounted_images
from hone.core.finetunejob.state import State
from hone.core.plan import Apply
from hone.core.pods import Trouble
from hone.core.times import seconds_since

CHECK_SECONDS = 10.0
"""How soon to check again for objects that the user has to create, and for pods that have to terminate."""


@dataclass(frozen=True)
class Blocked:
    """Why no attempt begins.

    Attributes:
        requeue: seconds after which to check again; None if an event triggers the next reconcile.
        trouble: what to report.
        gave_up: why no attempt will ever begin.
        models: the models of other jobs that exist already; None: unchanged.
        apply: what to apply before an attempt can begin.
        gpu: the GPUs of the trainer pods; None: unchanged.
        cache: the administrator's claim for downloads, empty if there is none; None: unchanged.
    """

    requeue: float | None = None
    trouble: Trouble | None = None
    gave_up: GiveUp | None = None
    models: dict[str, FoundModel] | None = None
    apply: tuple[Apply, ...] = ()
    gpu: GpuStatus | None = None
    cache: str | None = None


def retries_exhausted(state: State) -> Blocked | None:
    """The last failure exceeded a limit, or a retry cannot help."""
    last = _last_failed(state)
    if state.step is None or last is None or last.failure is None:
        return None
    reason = give_up(state.step.name, last.failure, state.status.failures, state.run.retry.limit)
    if reason is None:
        return None
    return Blocked(gave_up=reason) if may_end(state.run, state.observed) else Blocked(requeue=0.0)


def suspended(state: State) -> Blocked | None:
    """The user has suspended the job."""
    return Blocked() if state.run.spec.suspend else None


def asks_too_much(state: State) -> Blocked | None:
    """The spec asks for pods that the administrator does not allow. An edit or a restart of the operator wakes us."""
    run = state.run
    images = {"spec.compute.image": run.compute.image, **dict(mounted_images(run))}
    lists = run.settings.allow_lists
    trouble = not_allowed(lists, run.resource, "spec.compute.pod", run.compute.pod, images)
    return Blocked(trouble=trouble) if trouble else None


def over_budget(state: State) -> Blocked | None:
    """The budget allows no further training. An edit or a restart of the operator wakes us."""
    if state.step is None or state.step.name != TRAIN:
        return None
    trouble = budget.refusal(state.run.planned(state.status.plan), state.status, state.last(state.step))
    return Blocked(trouble=trouble) if trouble else None


def pods_end(state: State) -> Blocked | None:
    """Pods of the last attempt may still write to the volumes."""
    return Blocked(CHECK_SECONDS) if state.live_pods else None


def backs_off(state: State) -> Blocked | None:
    """The back-off after a failure is not over."""
    last = _last_failed(state)
    if state.step is None or last is None or last.failure is None:
        return None
    step, status = state.step.name, state.status
    quick = quick_ends(step, status.attempts)
    wait = backoff(step, last.failure, status.failures, quick, state.step.backoff_seconds)
    wait -= seconds_since(last.end_time, state.now)
    return Blocked(wait) if wait > 0 else None


def objects_unread(state: State) -> Blocked | None:
    """Not everything was read, since an attempt was running when the objects to read were chosen."""
    return None if are_known(state) else Blocked(0.0)


def upstream_unfinished(state: State) -> Blocked | None:
    """A job whose model is read has none yet, or we do not own its claim yet."""
    if state.step is None or not state.step.reads_models:
        return None
    known = None if state.status.prepared_spec is None else state.models
    upstream = follow(state.run, state.observed, known)
    if upstream.ready:
        return None
    # Events of other jobs trigger a reconcile, events of a claim do not.
    requeue = 0.0 if upstream.trouble is None else CHECK_SECONDS if upstream.trouble.reason == GONE else None
    return Blocked(requeue, upstream.trouble, models=upstream.models, apply=upstream.apply)


def dependency_missing(state: State) -> Blocked | None:
    """A claim or ConfigMap that the spec names does not exist."""
    trouble = missing(state.run, state.observed, state.step) if state.step else None
    return Blocked(CHECK_SECONDS, trouble) if trouble else None


def gpu_unrecorded(state: State) -> Blocked | None:
    """Nodes say which GPUs the run will get, and status does not yet: the RunConfig is rendered from what was read."""
    if state.status.run_config is not None:
        return None
    gpu = gpus_of_nodes(state.run, state.observed) or state.status.gpu
    return None if gpu == state.status.gpu == state.run.gpu else Blocked(0.0, gpu=gpu)


def cache_unrecorded(state: State) -> Blocked | None:
    """The namespace has the administrator's claim for downloads, or not any more, and status does not say so yet."""
    if state.status.run_config is not None:
        return None
    cache, read = cache_of_namespace(state.run, state.observed), state.old.cache_claim
    return None if cache == state.status.cache_claim == read else Blocked(0.0, cache=cache or "")


BLOCKERS: tuple[Callable[[State], Blocked | None], ...] = (
    retries_exhausted,
    suspended,
    asks_too_much,
    pods_end,
    over_budget,
    backs_off,
    objects_unread,
    upstream_unfinished,
    dependency_missing,
    gpu_unrecorded,
    cache_unrecorded,
)
"""Called in this order: each may assume that those before it returned None."""


def first_blocker(state: State) -> Blocked | None:
    """What blocks the next attempt, or None."""
    return next((blocked for blocker in BLOCKERS if (blocked := blocker(state))), None)


def _last_failed(state: State) -> AttemptStatus | None:
    """The newest attempt at the current step if it failed, and the spec is still the one that it had."""
    last = state.last(state.step) if state.step else None
    is_ours = last is not None and last.result == AttemptResult.FAILED and state.status.prepared_spec is not None
    is_ours = is_ours and not (state.step is not None and state.is_outdated(state.step))
    return last if is_ours else None
