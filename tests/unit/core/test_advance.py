"""When the next attempt is made, and when the run is given up."""

from tests.unit.core import make
from tests.unit.core.runs import preparing, results, training


def test_bad_input_fails_at_once_with_field_and_remedy() -> None:
    cluster = preparing()
    cluster.fail(
        64, make.verdict("BadInput", "spec.dataset.train: line 3 is no JSON", hint="write one object per line")
    )
    cluster.converge()
    assert cluster.jobs() == ["prepare-1"]
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Validated") == ("False", "BadInput")
    assert cluster.condition("Failed") == ("True", "BadInput")
    assert cluster.condition("Finished") == ("True", "Failed")
    assert cluster.condition("Stalled") == ("True", "BadInput")
    assert cluster.message("Failed") == "spec.dataset.train: line 3 is no JSON (write one object per line)"
    assert cluster.reasons()[-1] == "FailedBadInput"
    assert "startTime" not in cluster.status


def test_a_crashed_attempt_is_followed_by_the_next_one_up_to_the_limit() -> None:
    cluster = training(retry={"limit": 1})
    cluster.fail(70, make.verdict("Crashed", "boom"))
    cluster.converge()
    assert cluster.jobs()[-1] == "train-2"
    assert cluster.status["usage"]["retries"] == 1
    cluster.fail(70, make.verdict("Crashed", "boom"))
    cluster.converge()
    assert cluster.jobs()[-1] == "train-2"
    assert cluster.condition("Failed") == ("True", "RetryLimitExceeded")
    assert "boom" in cluster.message("Failed")
    assert cluster.status["failures"] == {"train.Crashed": 2}


def test_preemption_costs_no_retry() -> None:
    cluster = training(retry={"limit": 0})
    for _ in range(30):
        cluster.fail(75, make.verdict("Preempted"))
        for pod in cluster.pods.values():
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "Preemption"}]
        cluster.converge()
        cluster.start()
        cluster.later(300)
    assert cluster.jobs()[-1] == "train-31"
    assert cluster.status["usage"]["retries"] == 0
    assert len(cluster.status["attempts"]) == 20
    assert ("prepare", 1, "Succeeded") in results(cluster)


def test_attempts_that_are_evicted_at_once_again_and_again_wait_between_them() -> None:
    cluster = training()
    waits: list[float | None] = []
    for _ in range(9):
        cluster.later(5).fail(137)
        for pod in cluster.pods.values():
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "Evicted"}]
        plan = cluster.converge()
        if cluster.condition("Reconciling")[1] == "BackOff":
            waits.append(plan.requeue_after)
            cluster.later(plan.requeue_after or 0).converge()
        cluster.start()
        cluster.converge()
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    cluster.later(3600).fail(75)
    cluster.converge()
    assert results(cluster)[-1] == ("train", 11, "Running"), "an attempt that has worked begins the count again"


def test_the_next_attempt_waits_until_the_last_ones_pods_have_ended() -> None:
    cluster = training(compute={"gpusPerNode": 0, "nodes": 2})
    cluster.fail(70)
    survivor = next(iter(cluster.pods_of(cluster.job()["metadata"]["name"])))
    survivor["status"]["phase"] = "Running"
    plan = cluster.converge()
    assert cluster.jobs()[-1] == "train-1"
    assert plan.requeue_after == 10
    assert cluster.condition("Reconciling") == ("True", "WaitingForPods")
    assert cluster.message("Reconciling").endswith(f"to terminate: {survivor['metadata']['name']} on node-1")
    survivor["status"]["phase"] = "Failed"
    cluster.converge()
    assert cluster.jobs()[-1] == "train-2"


def test_trainer_pods_request_the_host_memory_of_the_plan_that_prepare_just_made() -> None:
    cluster = preparing(compute={"gpusPerNode": 1})
    cluster.complete(make.prepared(host_memory_bytes=300 * 2**30))
    cluster.converge()
    assert cluster.jobs()[-1] == "train-1"
    resources = cluster.job()["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("300Gi", "300Gi")
