"""A node that is down but not deleted: told after a while with what to do, and never raced."""

import pytest

from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.fake_cluster import World
from tests.unit.core.runs import results, training

REASON = "NodeUnreachable"


def taken_down(nodes: int = 2) -> World:
    """A gang whose last pod's node is silent: the pod was deleted, and its grace ends now."""
    world = training(compute={"gpusPerNode": 0, "nodes": nodes})
    pod = world.pods_of(world.job()["metadata"]["name"])[-1]
    pod["metadata"]["deletionTimestamp"] = rfc3339(world.now)
    pod["spec"]["nodeName"] = "node-7"
    return world


def test_it_is_told_after_five_minutes_once_with_node_and_remedy() -> None:
    world = taken_down()
    plan = world.later(299).settle()
    assert world.condition("Reconciling") == ("True", "Training")
    assert plan.requeue_after == 1
    world.later(1).settle()
    assert world.condition("Reconciling") == ("True", REASON)
    for words in ("train-1-1 was to end by 2026-01-01T00:00:00Z", "node-7", "delete the Node", "out-of-service"):
        assert words in world.message("Reconciling")
    world.later(60).settle()
    assert world.reasons().count(REASON) == 1
    assert results(world)[-1] == ("train", 1, "Running")


def test_no_other_attempt_is_made_as_long_as_the_node_may_write() -> None:
    world = taken_down()
    silent = world.pods_of(world.job()["metadata"]["name"])[-1]
    world.fail(70, make.verdict("Crashed"))
    silent["status"] = {"phase": "Running", "containerStatuses": [{"state": make.RUNNING}]}
    world.later(86_400).settle()
    assert world.jobs()[-1] == "train-1"
    assert world.condition("Reconciling") == ("True", REASON)
    world.drop_deleted_pods()
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.condition("Reconciling")[1] != REASON


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_not_waited_for(phase: str) -> None:
    world = taken_down()
    world.pods_of(world.job()["metadata"]["name"])[-1]["status"]["phase"] = phase
    world.later(3600).settle()
    assert world.condition("Reconciling")[1] != REASON
