"""The next move of a canary: a candidate next to the stable revision, and its share of the requests, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hone.api.modeldeployment import Candidate
from hone.api.rollout import CanaryStep
from hone.contract.analysis import AnalysisVerdict
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.analysis import Analyzed
from hone.core.modeldeployment.server import Server
from hone.core.observed import Object
from hone.core.pods import Trouble
from hone.core.times import rfc3339, seconds_since

ALL = 100
NO_SPARE_GPU = "NoSpareGPU"
UNSCHEDULABLE = "Unschedulable"


@dataclass(frozen=True)
class Canary:
    """What a candidate is to be now.

    Attributes:
        reason, message: what it waits for.
        replicas: its pods.
        weight: percent of the requests that it gets.
        step: steps that are over; None: it has not begun. All of them: it replaces the stable revision.
        since: since when the share of the current step is in force.
        is_paused: whether only a person ends the wait.
        due: seconds until the next move, if time alone decides.
        is_asked: whether it is being analyzed.
    """

    reason: str
    message: str
    replicas: int
    weight: int = 0
    step: int | None = None
    since: str | None = None
    is_paused: bool = False
    due: float | None = None
    is_asked: bool = False


def steps_of(server: Server) -> Sequence[CanaryStep]:
    """The steps of the spec."""
    return (server.spec.rollout.steps if server.spec.rollout else None) or []


def is_over(server: Server, candidate: Candidate | None) -> bool:
    """Whether the candidate has passed all steps, and replaces the stable revision."""
    return candidate is not None and candidate.step is not None and candidate.step >= len(steps_of(server))


def pods_for(weight: int, stable: int) -> int:
    """The candidate's pods, next to `stable` others, whose share is nearest to a weight; as many as those at most."""
    if weight == ALL:
        return stable
    return min(stable, max(1, round(stable * weight / (ALL - weight))))


def share_of(weight: int, stable: int) -> int:
    """The percent of requests that so many pods get, where each pod gets the same."""
    count = pods_for(weight, stable)
    return ALL if weight == ALL else round(ALL * count / (stable + count)) if count else 0


def delays_scaling(server: Server, done: int | None, weight: int, count: int) -> bool:
    """Whether fewer stable pods wait for the end of a step, since the share would move away from the step's weight.

    More pods never wait, since they are needed now; nor does 0, by which a person stops the server.

    Args:
        server: the ModelDeployment.
        done: steps that are over; None: the first has not begun.
        weight: percent of the requests that the candidate gets.
        count: the stable pods.
    """
    steps, replicas = steps_of(server), server.spec.replicas
    if done is None or done >= len(steps) or not weight or not replicas or replicas >= count:
        return False
    target = steps[done].weight
    # Its pods get all of the load, of which an autoscaler sees nothing at the stable ones.
    return target == ALL or abs(share_of(target, replicas) - target) > abs(share_of(target, count) - target)


def trouble_in_words(server: Server, trouble: Trouble) -> Trouble:
    """What keeps a candidate from starting, with what to do about it."""
    if trouble.reason != UNSCHEDULABLE or not server.spec.gpus:
        return trouble
    what = f"{server.spec.gpus} free {server.spec.gpu_resource}"
    remedy = "add one, or set spec.rollout.strategy to Recreate, which ends the old servers first"
    message = f"no node has {what} for the candidate next to the old servers: {remedy} ({trouble.message})"
    return Trouble(NO_SPARE_GPU, message)


def advance(
    server: Server,
    old: Candidate | None,
    stable: Object,
    candidate: Object | None,
    trouble: Trouble | None,
    in_force: bool,
    analysis: Analyzed | None,
    now: datetime,
) -> Canary:
    """The next move.

    Args:
        server: the ModelDeployment.
        old: how far this candidate was; None: it is new.
        stable: the stable Deployment.
        candidate: the candidate's, if it is rendered from what is wanted.
        trouble: what keeps its pods from becoming ready.
        in_force: whether requests are divided as the status says.
        analysis: how far its analysis is; None: the spec has none.
        now: the time.
    """
    count, steps = rollout.desired(stable), steps_of(server)
    done = old.step if old else None
    since = old.since if old else None
    is_paused = bool(server.spec.rollout and server.spec.rollout.paused)
    if count == 0 and (analysis or is_paused):
        message = "there are no servers to compare the candidate with; it waits until there are"
        return Canary("NoServers", message, 0, step=done, is_paused=True)
    if count == 0:
        return Canary("Promoting", "there are no servers to compare with", 0, step=len(steps))
    current = steps[done] if done is not None and done < len(steps) else None
    replicas = pods_for(current.weight, count) if current else 1
    weight = share_of(current.weight, count) if current else 0
    ready = candidate is not None and rollout.desired(candidate) == replicas and rollout.is_complete(candidate)
    if not ready:
        # Requests that only it would get have nobody to answer them. The step begins again afterwards.
        if candidate is not None and not rollout.available(candidate):
            weight, since = 0, None
        why = trouble_in_words(server, trouble) if trouble else Trouble("CandidateStarting", "the candidate starts")
        return Canary(why.reason, why.message, replicas, weight, done, since)
    if done is None and not steps and is_paused:
        message = "the candidate is ready and gets no requests, until spec.rollout.paused is false"
        return _judged(analysis, replicas) or Canary("Paused", message, replicas, is_paused=True)
    if done is None:
        return _judged(analysis, replicas) or _next(steps, 0, count)
    if current is None:
        return Canary("Promoting", "all steps are over", replicas, weight, done)
    if since is None and in_force:
        since = rfc3339(now)
    left = current.hold_seconds - seconds_since(since, now) if since else None
    where = f"step {done + 1} of {len(steps)}: the candidate gets {_in_words(current, weight)}"
    if delays_scaling(server, done, weight, count):
        reason = "the candidate's pods are as many" if weight == ALL else "that would change this share"
        where += f", and spec.replicas {server.spec.replicas} is not applied, since {reason}"
    if is_paused:
        message = f"{where}, until spec.rollout.paused is false"
        return Canary("Paused", message, replicas, weight, done, since, is_paused=True)
    if left is not None and left <= 0:
        return _next(steps, done + 1, count)
    hold = f" for {current.hold_seconds} s"
    return Canary("CanaryStep", where + hold, replicas, weight, done, since, due=left)


def _judged(analysis: Analyzed | None, replicas: int) -> Canary | None:
    """What a candidate that is ready and has no requests yet waits for; None: it passed, or is not analyzed."""
    if analysis is None:
        return None
    result, trouble = analysis.result, analysis.trouble
    if result is None:
        message = "both revisions are asked the same prompts" if trouble is None else trouble.message
        reason = trouble.reason if trouble else "Analyzing"
        return Canary(reason, message, replicas, is_paused=analysis.is_over, is_asked=True)
    if result.verdict == AnalysisVerdict.PASS:
        return None
    message = f"{result.message}; change spec.rollout.analysis or spec.rollout.retry to ask again"
    return Canary("Inconclusive", message, replicas, is_paused=True)


def _next(steps: Sequence[CanaryStep], done: int, count: int) -> Canary:
    """The beginning of the step after so many; the end after the last one keeps what that had."""
    if done < len(steps):
        step, message = steps[done], f"step {done + 1} of {len(steps)} begins"
        return Canary("CanaryStep", message, pods_for(step.weight, count), share_of(step.weight, count), done)
    if not steps:
        return Canary("Promoting", "the candidate is ready", 1, step=0)
    last = steps[-1].weight
    return Canary("Promoting", "all steps are over", pods_for(last, count), share_of(last, count), done)


def _in_words(step: CanaryStep, weight: int) -> str:
    exact = "" if weight == step.weight else f" (the nearest to {step.weight} % with whole pods)"
    return f"{weight} % of the requests{exact}"
