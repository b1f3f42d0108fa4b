"""When the next attempt is made, and when the run is given up."""

from tests.unit.core import make
from tests.unit.core.runs import preparing, results, training


def test_bad_input_fails_at_once_with_field_and_remedy() -> None:
    world = preparing()
    world.fail(64, make.verdict("BadInput", "spec.dataset.train: line 3 is no JSON", hint="write one object per line"))
    world.settle()
    assert world.jobs() == ["prepare-1"]
    assert world.status["phase"] == "Failed"
    assert world.condition("Validated") == ("False", "BadInput")
    assert world.condition("Failed") == ("True", "BadInput")
    assert world.condition("Finished") == ("True", "Failed")
    assert world.condition("Stalled") == ("True", "BadInput")
    assert world.message("Failed") == "spec.dataset.train: line 3 is no JSON (write one object per line)"
    assert world.reasons()[-1] == "FailedBadInput"
    assert "startTime" not in world.status


def test_a_crashed_attempt_is_followed_by_the_next_one_up_to_the_limit() -> None:
    world = training(retry={"limit": 1})
    world.fail(70, make.verdict("Crashed", "boom"))
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.status["usage"]["retries"] == 1
    world.fail(70, make.verdict("Crashed", "boom"))
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.condition("Failed") == ("True", "RetryLimitExceeded")
    assert "boom" in world.message("Failed")
    assert world.status["failures"] == {"train.Crashed": 2}


def test_preemption_costs_no_retry() -> None:
    world = training(retry={"limit": 0})
    for _ in range(30):
        world.fail(75, make.verdict("Preempted"))
        for pod in world.pods.values():
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "Preemption"}]
        world.settle()
        world.start()
        world.later(300)
    assert world.jobs()[-1] == "train-31"
    assert world.status["usage"]["retries"] == 0
    assert len(world.status["attempts"]) == 20
    assert ("prepare", 1, "Succeeded") in results(world)


def test_attempts_that_are_evicted_at_once_again_and_again_wait_between_them() -> None:
    world = training()
    waits: list[float | None] = []
    for _ in range(9):
        world.later(5).fail(137)
        for pod in world.pods.values():
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "Evicted"}]
        plan = world.settle()
        if world.condition("Reconciling")[1] == "BackOff":
            waits.append(plan.requeue_after)
            world.later(plan.requeue_after or 0).settle()
        world.start()
        world.settle()
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    world.later(3600).fail(75)
    world.settle()
    assert results(world)[-1] == ("train", 11, "Running"), "an attempt that has worked begins the count anew"


def test_the_next_attempt_waits_until_the_last_ones_pods_have_ended() -> None:
    world = training(compute={"gpusPerNode": 0, "nodes": 2})
    world.fail(70)
    survivor = next(iter(world.pods_of(world.job()["metadata"]["name"])))
    survivor["status"]["phase"] = "Running"
    plan = world.settle()
    assert world.jobs()[-1] == "train-1"
    assert plan.requeue_after == 10
    assert world.condition("Reconciling") == ("True", "WaitingForPods")
    assert world.message("Reconciling").endswith(f"yet to end: {survivor['metadata']['name']} on node-1")
    survivor["status"]["phase"] = "Failed"
    world.settle()
    assert world.jobs()[-1] == "train-2"
