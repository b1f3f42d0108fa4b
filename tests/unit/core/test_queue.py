"""A queue of Kueue: which Jobs wait in it, what is shown meanwhile, and what waiting does not cost."""

from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.runs import preparing, results

QUEUE = {"name": "gpus", "priorityClass": "urgent"}
LABELS = {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "urgent"}


def kueue_of(cluster: FakeCluster) -> tuple[dict[str, str], bool]:
    """Kueue's labels of the newest Job, and whether it is suspended."""
    job = cluster.job()
    labels = {key: value for key, value in job["metadata"]["labels"].items() if key.startswith("kueue")}
    return labels, job["spec"].get("suspend", False)


def queued(**spec: object) -> FakeCluster:
    """A job whose training waits in the queue."""
    cluster = preparing(**{"queue": QUEUE, **spec})
    cluster.complete(make.prepared())
    cluster.converge()
    return cluster


def admit(cluster: FakeCluster) -> None:
    """Kueue lets the newest Job start."""
    cluster.job()["spec"]["suspend"] = False


def test_what_trains_and_scores_waits_and_what_prepares_does_not() -> None:
    cluster = preparing(queue=QUEUE)
    assert kueue_of(cluster) == ({}, False)
    cluster.complete(make.prepared())
    cluster.converge()
    assert kueue_of(cluster) == (LABELS, True)
    admit(cluster)
    cluster.start()
    cluster.converge()
    cluster.complete(make.trained())
    cluster.converge()
    assert cluster.jobs()[-1] == "finish-1"
    assert kueue_of(cluster) == (LABELS, True)
    admit(cluster)
    cluster.complete(make.finished())
    cluster.converge()
    assert cluster.status["phase"] == "Succeeded"


def test_a_priority_is_not_needed_and_without_a_queue_there_is_neither() -> None:
    assert kueue_of(queued(queue={"name": "gpus"})) == ({"kueue.x-k8s.io/queue-name": "gpus"}, True)
    assert kueue_of(queued(queue=None)) == ({}, False)


def test_why_it_waits_is_shown_until_it_is_admitted() -> None:
    cluster = queued()
    job = cluster.job()["metadata"]
    assert cluster.status["phase"] == "Queued"
    assert cluster.condition("Reconciling") == ("True", "Queued")
    assert cluster.message("Reconciling") == (
        f"train, attempt 1: queue gpus has not admitted Job {job['name']}; "
        f"`kubectl describe workload -l kueue.x-k8s.io/job-uid={job['uid']}` shows why"
    )
    cluster.later(7 * 86400).converge()
    assert results(cluster)[-1] == ("train", 1, "Running"), "a queue has no deadline"
    admit(cluster)
    cluster.start()
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "Training")
    assert "queue" not in cluster.message("Reconciling")


def test_a_job_that_a_queue_holds_without_being_asked_is_shown_as_well() -> None:
    cluster = preparing()
    cluster.job()["spec"]["suspend"] = True
    cluster.converge()
    assert cluster.status["phase"] == "Preparing"
    assert cluster.condition("Validated")[0] == "Unknown"
    assert cluster.condition("Reconciling") == ("True", "Queued")
    assert "a queue or an administrator has suspended Job" in cluster.message("Reconciling")


def test_a_job_that_is_suspended_while_it_waits_has_used_no_gpus_and_no_retry() -> None:
    cluster = queued(compute={"gpusPerNode": 2})
    cluster.later(3600).edit(suspend=True).converge()
    assert results(cluster)[-1] == ("train", 1, "Suspended")
    assert cluster.status["usage"]["gpuSeconds"] == cluster.status["usage"]["retries"] == 0


def test_the_queue_may_be_edited_at_any_time_and_the_next_attempt_waits_there() -> None:
    cluster = preparing(queue=QUEUE)
    cluster.edit(queue={"name": "other"}).converge()
    assert results(cluster) == [("prepare", 1, "Running")], "what was prepared does not depend on it"
    cluster.complete(make.prepared())
    cluster.converge()
    assert kueue_of(cluster)[0] == {"kueue.x-k8s.io/queue-name": "other"}
    cluster.edit(queue=QUEUE).converge()
    assert results(cluster)[-1] == ("train", 1, "Running")
    cluster.edit(suspend=True).converge()
    cluster.drop_deleted_pods()
    cluster.edit(suspend=False).converge()
    assert (cluster.jobs()[-1], kueue_of(cluster)) == ("train-2", (LABELS, True))
