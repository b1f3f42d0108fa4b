"""How an attempt ended, and what its step gave."""

import pytest

from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.runs import finishing, preparing, results, training


def test_a_job_deleted_by_hand_is_a_preemption() -> None:
    world = training()
    world.remove_job(Ref("batch/v1", "Job", world.job()["metadata"]["name"]))
    world.drop_deleted_pods()
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.status["failures"] == {"train.Preempted": 1}


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_a_missed_result_is_made_again_by_its_own_step(step: str) -> None:
    world = preparing() if step == "prepare" else finishing()
    world.complete(make.prepared() if step == "prepare" else make.finished())
    world.pods.clear()
    world.settle()
    assert world.jobs()[-1] == f"{step}-2"
    assert world.status["failures"] == {f"{step}.NodeLost": 1}
    assert "train-2" not in world.jobs()


def test_training_is_never_repeated_for_its_message() -> None:
    world = training()
    world.complete("")
    world.pods.clear()
    world.settle()
    assert world.jobs()[-1] == "finish-1"
    assert world.status["progress"]["percent"] == 100


def test_an_image_that_leaves_no_result_is_given_up() -> None:
    world = preparing(retry={"limit": 0})
    world.complete("hello")
    world.settle()
    assert world.condition("Failed") == ("True", "RetryLimitExceeded")
    assert "trainer image" in world.message("Failed")


def test_a_complete_job_whose_pod_still_seems_to_run_is_looked_at_again() -> None:
    world = preparing()
    world.start()
    world.job()["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    plan = world.settle()
    assert plan.requeue_after == 2
    assert results(world) == [("prepare", 1, "Running")]


def test_the_deadline_of_an_attempt_ends_the_run() -> None:
    world = training(activeDeadlineSeconds=60)
    assert world.job()["spec"]["activeDeadlineSeconds"] == 60
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    world.pods.clear()
    world.job()["status"] = {"conditions": [condition]}
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")
