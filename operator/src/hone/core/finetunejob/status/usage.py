"""GPU seconds that an attempt has held."""

from hone.api.finetunejob_status import AttemptStatus
from hone.core import pods as podinfo
from hone.core.finetunejob.resources.jobs import finish_gpus
from hone.core.finetunejob.run import Step
from hone.core.finetunejob.state import State
from hone.core.observed import Object, Pod
from hone.core.times import parse, seconds_since


def count(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> None:
    """Add what an attempt that has ended has held, from its first container's start: until then no GPU is held.

    To the last container's end; to the present where one of them has not ended, or was not seen ending.
    """
    compute = state.run.compute
    gpus = {Step.TRAIN: compute.nodes * compute.gpus_per_node, Step.FINISH: finish_gpus(state.run)}
    starts = [moment for pod in pods if (moment := podinfo.started_at(pod))]
    begin = min(starts) if starts else ((job or {}).get("status") or {}).get("startTime")
    ends = [podinfo.ended_at(pod) for pod in pods]
    end = max((parse(moment) for moment in ends if moment), default=state.now) if all(ends) else state.now
    state.gpu_seconds += gpus.get(Step(attempt.step), 0) * round(seconds_since(begin, end))
