"""A node that is down but not deleted: told after a while with what to do, and never raced."""

import pytest

from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.runs import results, training

REASON = "NodeUnreachable"


def taken_down(nodes: int = 2) -> FakeCluster:
    """A gang whose last pod's node is silent: the pod was deleted, and its grace ends now."""
    cluster = training(compute={"gpusPerNode": 0, "nodes": nodes})
    pod = cluster.pods_of(cluster.job()["metadata"]["name"])[-1]
    pod["metadata"]["deletionTimestamp"] = rfc3339(cluster.now)
    pod["spec"]["nodeName"] = "node-7"
    return cluster


def test_it_is_told_after_five_minutes_once_with_node_and_remedy() -> None:
    cluster = taken_down()
    plan = cluster.later(299).converge()
    assert cluster.condition("Reconciling") == ("True", "Training")
    assert plan.requeue_after == 1
    cluster.later(1).converge()
    assert cluster.condition("Reconciling") == ("True", REASON)
    for words in (
        "train-1-1 should have terminated by 2026-01-01T00:00:00Z",
        "node-7",
        "delete the Node",
        "out-of-service",
    ):
        assert words in cluster.message("Reconciling")
    cluster.later(60).converge()
    assert cluster.reasons().count(REASON) == 1
    assert results(cluster)[-1] == ("train", 1, "Running")


def test_no_other_attempt_is_made_as_long_as_the_node_may_write() -> None:
    cluster = taken_down()
    silent = cluster.pods_of(cluster.job()["metadata"]["name"])[-1]
    cluster.fail(70, make.verdict("Crashed"))
    silent["status"] = {"phase": "Running", "containerStatuses": [{"state": make.RUNNING}]}
    cluster.later(86_400).converge()
    assert cluster.jobs()[-1] == "train-1"
    assert cluster.condition("Reconciling") == ("True", REASON)
    cluster.drop_deleted_pods()
    cluster.converge()
    assert cluster.jobs()[-1] == "train-2"
    assert cluster.condition("Reconciling")[1] != REASON


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_not_waited_for(phase: str) -> None:
    cluster = taken_down()
    cluster.pods_of(cluster.job()["metadata"]["name"])[-1]["status"]["phase"] = phase
    cluster.later(3600).converge()
    assert cluster.condition("Reconciling")[1] != REASON
