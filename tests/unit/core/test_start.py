"""Pods that do not start: told at once, given up after a while, with time for those that are queued."""

from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.fake_cluster import finetunejob_cluster
from tests.unit.core.runs import preparing, results, training

UNBOUND = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims",
}


def test_trouble_at_the_start_is_shown_at_once_and_told_once() -> None:
    cluster = preparing()
    cluster.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "ImagePullBackOff")
    assert cluster.condition("Validated") == ("Unknown", "ImagePullBackOff")
    assert "no such image" in cluster.message("Reconciling")
    cluster.start({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, phase="Pending")
    cluster.converge()
    assert cluster.reasons().count("ImagePullBackOff") == 1
    assert cluster.status["phase"] == "Preparing"


def test_a_secret_that_is_missing_is_told_in_the_kubelets_words_and_may_come_later() -> None:
    cluster = preparing()
    cluster.start(
        {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "wandb" not found'}}, "Pending"
    )
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "CreateContainerConfigError")
    assert 'secret "wandb" not found' in cluster.message("Reconciling")
    cluster.start()
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "Preparing")
    assert cluster.jobs() == ["prepare-1"]


def test_an_unschedulable_pod_is_shown_with_the_schedulers_words() -> None:
    cluster = preparing()
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    cluster.start({}, phase="Pending", conditions=[scheduled])
    cluster.converge()
    assert cluster.condition("Ready") == ("False", "Unschedulable")
    assert "0/1 nodes" in cluster.message("Ready")


def test_a_job_without_pods_is_told_of() -> None:
    cluster = preparing()
    assert cluster.reconcile().requeue_after == 30
    cluster.later(31).converge()
    assert cluster.condition("Reconciling") == ("True", "NoPods")


def test_what_does_not_start_in_time_is_deleted_and_tried_again_later_at_most_five_times() -> None:
    cluster = preparing(startDeadlineSeconds=60)
    for attempt in range(1, 6):
        cluster.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
        cluster.converge()
        cluster.later(61).converge()
        assert cluster.status["failures"] == {"prepare.NeverStarted": attempt}
        assert cluster.jobs()[-1] == f"prepare-{attempt}"
        cluster.drop_deleted_pods()
        plan = cluster.converge()
        if attempt < 5:
            assert cluster.condition("Reconciling")[1] == "BackOff"
            assert plan.requeue_after == 30 * 2 ** (attempt - 1)
            cluster.later(plan.requeue_after).converge()
    assert cluster.condition("Failed") == ("True", "NeverStarted")
    assert "no such image" in cluster.message("Failed")
    assert not [ref for ref in cluster.objects if ref.kind == "Job"]


def test_a_gang_of_which_one_pod_does_not_start_is_deleted() -> None:
    cluster = preparing(compute={"gpusPerNode": 0, "nodes": 2}, startDeadlineSeconds=60)
    cluster.complete(make.prepared())
    cluster.converge()
    cluster.start()
    late = cluster.pods_of(cluster.job()["metadata"]["name"])[1]
    late["status"] |= {"phase": "Pending", "containerStatuses": []}
    cluster.converge()
    assert cluster.status["phase"] == "Queued"
    cluster.later(61).converge()
    assert cluster.status["failures"] == {"train.NeverStarted": 1}


def test_a_gang_that_has_started_has_no_start_deadline_any_more() -> None:
    cluster = training(startDeadlineSeconds=60)
    cluster.later(3600).converge()
    assert results(cluster)[-1] == ("train", 1, "Running")


def test_a_job_that_is_queued_has_no_start_deadline() -> None:
    cluster = preparing(startDeadlineSeconds=60)
    cluster.job()["spec"]["suspend"] = True
    plan = cluster.later(3600).converge()
    assert results(cluster) == [("prepare", 1, "Running")]
    assert plan.requeue_after is None, "the Job's own event tells when the queue lets it go"
    assert cluster.condition("Reconciling")[1] == "Queued"


def test_the_start_deadline_begins_when_the_queue_lets_the_job_go() -> None:
    cluster = preparing(startDeadlineSeconds=60)
    cluster.job()["spec"]["suspend"] = True
    cluster.later(3600).converge()
    cluster.job()["spec"]["suspend"] = False
    cluster.job()["status"] = {"startTime": rfc3339(cluster.now), "active": 1}
    cluster.start({"waiting": {"reason": "ContainerCreating"}}, phase="Pending")
    plan = cluster.later(10).converge()
    assert results(cluster) == [("prepare", 1, "Running")]
    assert plan.requeue_after == 50
    cluster.later(51).converge()
    assert cluster.status["failures"] == {"prepare.NeverStarted": 1}


def test_a_job_that_a_queue_took_back_and_let_go_again_has_to_start_anew() -> None:
    cluster = training(startDeadlineSeconds=60)
    (old,) = cluster.pods_of(cluster.job()["metadata"]["name"])
    cluster.job()["spec"]["suspend"] = True
    old["metadata"]["deletionTimestamp"] = rfc3339(cluster.now)
    cluster.converge()
    assert cluster.status["phase"] == "Queued"
    cluster.job()["spec"]["suspend"] = False
    cluster.job()["status"] = {"startTime": rfc3339(cluster.now), "active": 1}
    old["status"]["phase"] = "Failed"
    cluster.pods = {"seen ending": old}
    cluster.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
    cluster.converge()
    assert cluster.status["phase"] == "Queued"
    assert cluster.condition("Reconciling")[1] == "ImagePullBackOff"
    cluster.later(61).converge()
    assert cluster.status["failures"] == {"train.NeverStarted": 1}


def test_a_gang_whose_lost_pod_was_not_seen_has_started() -> None:
    cluster = training(compute={"gpusPerNode": 0, "nodes": 2}, startDeadlineSeconds=60)
    job = cluster.job()["metadata"]["name"]
    del cluster.pods[f"{job}-1"]  # while no operator ran
    cluster.pods[f"{job}-0"]["metadata"]["deletionTimestamp"] = rfc3339(cluster.now)
    cluster.job()["status"] = {"active": 0, "terminating": 1, "failed": 1}
    cluster.later(3600).converge()
    assert results(cluster)[-1] == ("train", 1, "Running")
    cluster.fail(75)
    cluster.drop_deleted_pods()
    cluster.converge()
    assert cluster.status["failures"] == {"train.Preempted": 1}


def test_the_wait_for_a_claim_begins_with_its_pod() -> None:
    """A busy cluster creates the pods of a Job late."""
    cluster = finetunejob_cluster()
    cluster.converge()
    cluster.later(25).reconcile()
    cluster.start({"waiting": {}}, phase="Pending", conditions=[UNBOUND])
    for pod in cluster.pods.values():
        pod["metadata"]["creationTimestamp"] = rfc3339(cluster.now)
    assert cluster.later(29).reconcile().requeue_after == 1.0
    assert cluster.reasons() == []
    cluster.later(1).reconcile()
    assert cluster.reasons() == ["ClaimNotBound"]


def test_a_claim_that_is_bound_within_seconds_is_not_reported() -> None:
    """Nearly every claim is unbound when its first pod is created; to tell it costs two statuses and an Event."""
    cluster = finetunejob_cluster()
    cluster.converge()
    cluster.start({"waiting": {}}, phase="Pending", conditions=[UNBOUND])
    before = cluster.writes
    plan = cluster.later(5).reconcile()
    assert cluster.writes == before and cluster.reasons() == []
    assert plan.requeue_after == 25.0
    cluster.later(25).reconcile()
    assert cluster.reasons() == ["ClaimNotBound"]
