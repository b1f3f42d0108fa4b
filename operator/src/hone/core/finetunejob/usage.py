"""GPU seconds that an attempt has held."""

from hone.api.finetunejob import AttemptStatus
from hone.core import pods as podinfo
from hone.core.finetunejob.jobs import finish_gpus
from hone.core.finetunejob.run import Step
from hone.core.finetunejob.state import State
from hone.core.observed import Object, Pod
from hone.core.times import seconds_since


def count(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> None:
    """Add what an attempt that ends now has held, from its first container's start: until then no GPU is held."""
    compute = state.run.compute
    gpus = {Step.TRAIN: compute.nodes * compute.gpus_per_node, Step.FINISH: finish_gpus(state.run)}
    starts = [moment for pod in pods if (moment := podinfo.started_at(pod))]
    begin = min(starts) if starts else ((job or {}).get("status") or {}).get("startTime")
    state.gpu_seconds += gpus.get(Step(attempt.step), 0) * round(seconds_since(begin, state.now))
