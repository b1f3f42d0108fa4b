"""Jobs of attempts that are over for good are removed, and no other ever is."""

from typing import Any

import pytest

from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster, finetunejob_cluster


def jobs(cluster: FakeCluster) -> list[str]:
    """The Jobs that exist."""
    return sorted("-".join(ref.name.split("-")[-2:]) for ref in cluster.objects if ref.kind == "Job")


def preempted(cluster: FakeCluster, times: int) -> None:
    """Training is preempted again and again."""
    for _ in range(times):
        cluster.fail(75, make.verdict("Preempted"))
        cluster.later(3600).converge()


def training(**spec: Any) -> FakeCluster:
    cluster = finetunejob_cluster(**spec)
    cluster.converge()
    cluster.complete(make.prepared())
    cluster.converge()
    return cluster


@pytest.mark.slow
def test_fifty_preemptions_leave_a_handful_of_jobs() -> None:
    cluster = training()
    preempted(cluster, 50)
    assert len(cluster.created) > 50
    assert jobs(cluster) == ["prepare-1", "train-51"], "Kubernetes removes the former after a day"


def test_the_last_job_of_each_step_stays_so_that_its_logs_can_be_read() -> None:
    cluster = training()
    cluster.complete(make.trained())
    cluster.converge()
    cluster.complete(make.finished())
    cluster.converge()
    assert jobs(cluster) == ["finish-1", "prepare-1", "train-1"]
    failed = training()
    failed.fail(64, make.verdict("BadInput"))
    failed.converge()
    assert jobs(failed) == ["prepare-1", "train-1"]


def test_a_job_is_not_removed_before_the_status_has_its_result_and_the_next_attempt() -> None:
    """Were it gone before, training would count as lost, and run again."""
    cluster = training()
    cluster.fail(75, make.verdict("Preempted"))
    cluster.later(3600)
    while "train-2" not in jobs(cluster):
        assert cluster.reconcile().delete == () and "train-1" in jobs(cluster)
    cluster.converge()
    assert jobs(cluster) == ["prepare-1", "train-2"]


@pytest.mark.parametrize("kind", ["train", "prepare", "finish"])
def test_kubernetes_removes_the_last_job_of_each_step(kind: str) -> None:
    cluster = training()
    cluster.complete(make.trained())
    cluster.converge()
    (job,) = [obj for ref, obj in cluster.written.items() if ref.kind == "Job" and f"-{kind}-" in ref.name]
    assert job["spec"]["ttlSecondsAfterFinished"] == 24 * 3600


def test_a_crash_at_any_write_removes_no_job_that_is_needed() -> None:
    def live(crash_at: int | None) -> FakeCluster:
        cluster = finetunejob_cluster()
        cluster.crash_at = crash_at
        results = {"prepare": make.prepared(), "train": make.trained(), "finish": make.finished()}
        for _ in range(12):
            try:
                cluster.converge()
            except Crash:
                cluster.crash_at = None
                continue
            running = [a for a in cluster.status.get("attempts", []) if a["result"] == "Running"]
            if running and Ref("batch/v1", "Job", running[0]["job"]) in cluster.objects:
                cluster.complete(results[running[0]["step"]])
        return cluster

    whole = live(None)
    assert whole.status["phase"] == "Succeeded"
    for number in range(1, whole.writes + 1):
        cluster = live(number)
        assert cluster.jobs() == ["prepare-1", "train-1", "finish-1"], f"crash at write {number}"
        assert jobs(cluster) == ["finish-1", "prepare-1", "train-1"], f"crash at write {number}"


def test_the_job_of_a_stranger_under_the_name_is_left_alone() -> None:
    cluster = training()
    preempted(cluster, 1)
    ref = Ref("batch/v1", "Job", "support-bot-757620-train-1")
    foreign = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": ref.name, "uid": "foreign"}, "spec": {}}
    cluster.add(foreign)
    cluster.converge()
    assert cluster.objects[ref] is foreign
    assert cluster.condition("Stalled")[0] == "False", "and the run needs that name no longer"


def test_a_step_that_is_repeated_leaves_its_last_job_only() -> None:
    cluster = finetunejob_cluster()
    cluster.converge()
    preempted(cluster, 3)
    assert jobs(cluster) == ["prepare-4"]
