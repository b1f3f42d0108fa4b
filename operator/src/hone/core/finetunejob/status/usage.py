"""GPU seconds used by an attempt."""

from hone.api.finetunejob_status import AttemptStatus
from hone.core import pods as podinfo
from hone.core.finetunejob.state import State
from hone.core.finetunejob.steps import STEPS
from hone.core.observed import Object, Pod
from hone.core.times import parse, seconds_since


def gpu_seconds(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> int:
    """GPU seconds of an attempt that has ended, from the start of its first container to the end of its last one.

    If the end of a container was not observed, to the present.
    """
    starts = [moment for pod in pods if (moment := podinfo.started_at(pod))]
    begin = min(starts) if starts else ((job or {}).get("status") or {}).get("startTime")
    ends = [podinfo.ended_at(pod) for pod in pods]
    end = max((parse(moment) for moment in ends if moment), default=state.now) if all(ends) else state.now
    return STEPS[attempt.step].gpus(state.run) * round(seconds_since(begin, end))
