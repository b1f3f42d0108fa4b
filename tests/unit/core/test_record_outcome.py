"""How an attempt ended, and what its step gave."""

import copy

import pytest

from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.runs import finishing, preparing, results, training


def test_a_job_deleted_by_hand_is_a_preemption() -> None:
    cluster = training()
    cluster.remove_job(Ref("batch/v1", "Job", cluster.job()["metadata"]["name"]))
    cluster.drop_deleted_pods()
    cluster.converge()
    assert cluster.jobs()[-1] == "train-2"
    assert cluster.status["failures"] == {"train.Preempted": 1}


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_a_missed_result_is_made_again_by_its_own_step(step: str) -> None:
    cluster = preparing() if step == "prepare" else finishing()
    cluster.complete(make.prepared() if step == "prepare" else make.finished())
    cluster.pods.clear()
    cluster.converge()
    assert cluster.jobs()[-1] == f"{step}-2"
    assert cluster.status["failures"] == {f"{step}.NodeLost": 1}
    assert "train-2" not in cluster.jobs()


def test_training_is_never_repeated_for_its_message() -> None:
    cluster = training()
    cluster.complete("")
    cluster.pods.clear()
    cluster.converge()
    assert cluster.jobs()[-1] == "finish-1"
    assert cluster.status["progress"]["percent"] == 100


def test_an_image_that_leaves_no_result_is_given_up() -> None:
    cluster = preparing(retry={"limit": 0})
    cluster.complete("hello")
    cluster.converge()
    assert cluster.condition("Failed") == ("True", "RetryLimitExceeded")
    assert "trainer image" in cluster.message("Failed")


def test_a_complete_job_whose_pod_still_seems_to_run_is_looked_at_again() -> None:
    cluster = preparing()
    cluster.start()
    cluster.job()["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    plan = cluster.converge()
    assert plan.requeue_after == 2
    assert results(cluster) == [("prepare", 1, "Running")]


def test_the_deadline_of_an_attempt_ends_the_run() -> None:
    cluster = training(activeDeadlineSeconds=60)
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 60
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    cluster.pods.clear()
    cluster.job()["status"] = {"conditions": [condition]}
    cluster.converge()
    assert cluster.condition("Failed") == ("True", "DeadlineExceeded")


@pytest.mark.parametrize(
    "owners", [[], [{"apiVersion": "batch/v1", "kind": "Job", "name": "mine", "uid": "a", "controller": True}]]
)
def test_a_pod_that_only_has_the_labels_of_a_run_says_nothing_of_it(owners: list[dict[str, object]]) -> None:
    cluster = training()
    cluster.start()
    (real,) = cluster.pods_of(cluster.job()["metadata"]["name"])
    forged = copy.deepcopy(real)
    forged["metadata"] |= {"name": "forged", "uid": "forged", "ownerReferences": owners}
    forged["status"] = {"phase": "Failed", "containerStatuses": [{"state": make.exited(64, make.verdict("BadInput"))}]}
    cluster.pods = {"forged": forged}
    cluster.job()["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    cluster.converge()
    assert cluster.status["failures"] == {"train.Crashed": 1}
    assert "it went wrong" not in str(cluster.status)
