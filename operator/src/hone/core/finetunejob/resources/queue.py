"""What a Job needs to wait in a queue of Kueue, and what is shown while a queue holds it."""

from collections.abc import Mapping

from hone.core.finetunejob.run import Run
from hone.core.names import QUEUE_LABEL
from hone.core.observed import Object

PRIORITY_LABEL, JOB_LABEL = "kueue.x-k8s.io/priority-class", "kueue.x-k8s.io/job-uid"


def labels(run: Run) -> Mapping[str, str]:
    """The labels by which Kueue takes over a Job; none where the spec names no queue."""
    queue = run.spec.queue
    if queue is None:
        return {}
    return {QUEUE_LABEL: queue.name, **({PRIORITY_LABEL: queue.priority_class} if queue.priority_class else {})}


def waits_for(job: Object) -> str:
    """Why a suspended Job waits, in words, and where its queue says more."""
    meta = job["metadata"]
    name = (meta.get("labels") or {}).get(QUEUE_LABEL)
    who = f"queue {name} has not admitted" if name else "a queue or an administrator has suspended"
    return f"{who} Job {meta['name']}; `kubectl describe workload -l {JOB_LABEL}={meta['uid']}` shows why"
