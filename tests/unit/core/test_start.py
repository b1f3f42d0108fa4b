"""Pods that do not start: told at once, given up after a while, with time for those that are queued."""

from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.runs import preparing, results, training


def test_trouble_at_the_start_is_shown_at_once_and_told_once() -> None:
    world = preparing()
    world.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
    world.settle()
    assert world.condition("Reconciling") == ("True", "ImagePullBackOff")
    assert world.condition("Validated") == ("Unknown", "ImagePullBackOff")
    assert "no such image" in world.message("Reconciling")
    world.start({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, phase="Pending")
    world.settle()
    assert world.reasons().count("ImagePullBackOff") == 1
    assert world.status["phase"] == "Preparing"


def test_a_secret_that_is_missing_is_told_in_the_kubelets_words_and_may_come_later() -> None:
    world = preparing()
    world.start({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "wandb" not found'}}, "Pending")
    world.settle()
    assert world.condition("Reconciling") == ("True", "CreateContainerConfigError")
    assert 'secret "wandb" not found' in world.message("Reconciling")
    world.start()
    world.settle()
    assert world.condition("Reconciling") == ("True", "Preparing")
    assert world.jobs() == ["prepare-1"]


def test_an_unschedulable_pod_is_shown_with_the_schedulers_words() -> None:
    world = preparing()
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    world.start({}, phase="Pending", conditions=[scheduled])
    world.settle()
    assert world.condition("Ready") == ("False", "Unschedulable")
    assert "0/1 nodes" in world.message("Ready")


def test_a_job_without_pods_is_told_of() -> None:
    world = preparing()
    assert world.look().requeue_after == 30
    world.later(31).settle()
    assert world.condition("Reconciling") == ("True", "NoPods")


def test_what_does_not_start_in_time_is_deleted_and_tried_again_later_at_most_five_times() -> None:
    world = preparing(startDeadlineSeconds=60)
    for attempt in range(1, 6):
        world.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
        world.settle()
        world.later(61).settle()
        assert world.status["failures"] == {"prepare.NeverStarted": attempt}
        assert world.jobs()[-1] == f"prepare-{attempt}"
        world.drop_deleted_pods()
        plan = world.settle()
        if attempt < 5:
            assert world.condition("Reconciling")[1] == "BackOff"
            assert plan.requeue_after == 30 * 2 ** (attempt - 1)
            world.later(plan.requeue_after).settle()
    assert world.condition("Failed") == ("True", "NeverStarted")
    assert "no such image" in world.message("Failed")
    assert not [ref for ref in world.objects if ref.kind == "Job"]


def test_a_gang_of_which_one_pod_does_not_start_is_deleted() -> None:
    world = preparing(compute={"gpusPerNode": 0, "nodes": 2}, startDeadlineSeconds=60)
    world.complete(make.prepared())
    world.settle()
    world.start()
    late = world.pods_of(world.job()["metadata"]["name"])[1]
    late["status"] |= {"phase": "Pending", "containerStatuses": []}
    world.settle()
    assert world.status["phase"] == "Queued"
    world.later(61).settle()
    assert world.status["failures"] == {"train.NeverStarted": 1}


def test_a_gang_that_has_started_has_no_start_deadline_any_more() -> None:
    world = training(startDeadlineSeconds=60)
    world.later(3600).settle()
    assert results(world)[-1] == ("train", 1, "Running")


def test_a_job_that_is_queued_has_no_start_deadline() -> None:
    world = preparing(startDeadlineSeconds=60)
    world.job()["spec"]["suspend"] = True
    plan = world.later(3600).settle()
    assert results(world) == [("prepare", 1, "Running")]
    assert plan.requeue_after is None, "the Job's own event tells when the queue lets it go"
    assert world.condition("Reconciling")[1] == "Preparing"


def test_the_start_deadline_begins_when_the_queue_lets_the_job_go() -> None:
    world = preparing(startDeadlineSeconds=60)
    world.job()["spec"]["suspend"] = True
    world.later(3600).settle()
    world.job()["spec"]["suspend"] = False
    world.job()["status"] = {"startTime": rfc3339(world.now), "active": 1}
    world.start({"waiting": {"reason": "ContainerCreating"}}, phase="Pending")
    plan = world.later(10).settle()
    assert results(world) == [("prepare", 1, "Running")]
    assert plan.requeue_after == 50
    world.later(51).settle()
    assert world.status["failures"] == {"prepare.NeverStarted": 1}


def test_a_job_that_a_queue_took_back_and_let_go_again_has_to_start_anew() -> None:
    world = training(startDeadlineSeconds=60)
    (old,) = world.pods_of(world.job()["metadata"]["name"])
    world.job()["spec"]["suspend"] = True
    old["metadata"]["deletionTimestamp"] = rfc3339(world.now)
    world.settle()
    assert world.status["phase"] == "Queued"
    world.job()["spec"]["suspend"] = False
    world.job()["status"] = {"startTime": rfc3339(world.now), "active": 1}
    old["status"]["phase"] = "Failed"
    world.pods = {"seen ending": old}
    world.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
    world.settle()
    assert world.status["phase"] == "Queued"
    assert world.condition("Reconciling")[1] == "ImagePullBackOff"
    world.later(61).settle()
    assert world.status["failures"] == {"train.NeverStarted": 1}


def test_a_gang_whose_lost_pod_was_not_seen_has_started() -> None:
    world = training(compute={"gpusPerNode": 0, "nodes": 2}, startDeadlineSeconds=60)
    job = world.job()["metadata"]["name"]
    del world.pods[f"{job}-1"]  # while no operator ran
    world.pods[f"{job}-0"]["metadata"]["deletionTimestamp"] = rfc3339(world.now)
    world.job()["status"] = {"active": 0, "terminating": 1, "failed": 1}
    world.later(3600).settle()
    assert results(world)[-1] == ("train", 1, "Running")
    world.fail(75)
    world.drop_deleted_pods()
    world.settle()
    assert world.status["failures"] == {"train.Preempted": 1}
