"""Full tuning in two pods with ZeRO-2; a rank is killed, a pod evicted, and the operator's pod lost in each phase."""

import os
import signal
from collections.abc import Iterator

import pytest

from dev import install
from dev.kube import Kube, Object, is_true
from tests.e2e.prometheus import lint, scrape
from tests.e2e.support import (
    EXAMPLES,
    apply_file,
    evict,
    finished,
    joins_rendezvous,
    namespace,
    replace_operator,
    reviews,
    stop_rank,
    train_pods,
    until,
)

NAME = "3b.v1-sft"
"""A legal name of a resource, but of neither a Service nor an Indexed Job."""
TRAINING_SECONDS = 900
expositions: list[str] = []
"""What both trainer pods showed as metrics right before the rank was killed."""
strangers: list[bool] = []
"""Whether somebody without the run's key could use the ranks' store, from an address that no policy keeps out."""
replaced: list[str] = []
"""The phases in which the operator's pod was deleted."""


@pytest.fixture(scope="module")
def ns(kube: Kube, hone: str, images: dict[str, str]) -> Iterator[Kube]:
    """A namespace with base model and data."""
    with namespace(kube, "hone-e2e-full") as scoped:
        install.base_models(scoped, images["hone-base-models"])
        reviews(scoped)
        yield scoped


def state(ns: Kube) -> Object:
    """The job's status."""
    return (ns.get("finetunejob", NAME) or {}).get("status") or {}


def trainings(status: Object) -> list[Object]:
    """The attempts at training."""
    return [attempt for attempt in status.get("attempts", []) if attempt["step"] == "train"]


def step_of(status: Object, number: int) -> int:
    """The step that the training attempt of that number reports; 0 where it does not run or has not reported yet."""
    last: Object = next(reversed(trainings(status)), {})
    if (last.get("number"), last.get("result"), status.get("phase")) != (number, "Running", "Training"):
        return 0
    progress: Object = status.get("progress") or {}
    # What is still an earlier attempt's does not count.
    return int(progress["step"]) if progress.get("observedTime", "") > last["startTime"] else 0


def lose_operator(ns: Kube, phase: str) -> None:
    """Delete the operator's pod while the job is in this phase, and wait for the next one."""
    assert state(ns)["phase"] == phase
    replace_operator(ns)
    replaced.append(phase)


@pytest.fixture(scope="module")
def killed(ns: Kube) -> dict[str, int]:
    """The job, applied, and one rank of its second pod killed once it had a checkpoint; at which step."""

    def longer(job: Object) -> None:
        job["metadata"]["name"] = NAME
        job["spec"]["hyperparameters"]["epochs"] = 12  # Three attempts share them, each long enough to be seen.

    apply_file(ns, EXAMPLES / "sentiment-full-zero2.yaml", longer)
    until(lambda: state(ns).get("phase") == "Preparing", "the job is being prepared", 60)
    lose_operator(ns, "Preparing")

    def trains_beyond_a_checkpoint() -> Object | None:
        status = state(ns)
        assert not any(attempt.get("failure") for attempt in status.get("attempts", [])), status["attempts"]
        saved = (status.get("checkpoint") or {}).get("step", 0)
        return status if saved and status["progress"]["step"] > saved else None

    status = until(trains_beyond_a_checkpoint, "training continues after a first checkpoint", TRAINING_SECONDS)
    pods = train_pods(ns, (ns.get("finetunejob", NAME) or {})["metadata"]["uid"])
    assert len(pods) == 2
    expositions.extend(scrape(f"{pod['status']['podIP']}:9400") for pod in pods)
    # On a fast machine training would end before the rest of this is done.
    rank = stop_rank(pods[1])
    lose_operator(ns, "Training")
    # The test runs on the node, and a NetworkPolicy does not apply to what a node sends to its own pods.
    strangers.append(joins_rendezvous(pods[0]["status"]["podIP"]))
    os.kill(rank, signal.SIGKILL)
    return {"checkpoint": status["checkpoint"]["step"], "total": status["progress"]["totalSteps"]}


@pytest.fixture(scope="module")
def evicted(ns: Kube, killed: dict[str, int]) -> dict[str, int]:
    """The second attempt's second pod, evicted when it had more than a checkpoint holds; at which steps it was seen."""
    steps: list[int] = []

    def has_more_than_a_checkpoint() -> bool:
        status = state(ns)
        step = step_of(status, 2)
        if step:
            steps.append(step)
        assert len(trainings(status)) < 3 and status.get("phase") != "Finishing", status["attempts"]
        return step > status["checkpoint"]["step"]

    until(has_more_than_a_checkpoint, "the second attempt continues", TRAINING_SECONDS)
    pods = train_pods(ns, (ns.get("finetunejob", NAME) or {})["metadata"]["uid"])
    assert len(pods) == 2
    evict(ns, pods[1])
    return {"first": steps[0], "last": steps[-1], "retries": state(ns)["usage"]["retries"]}


@pytest.fixture(scope="module")
def resumed(ns: Kube, evicted: dict[str, int]) -> list[int]:
    """The steps that the third attempt reported, up to the job's end."""
    steps: list[int] = []

    def ended() -> bool:
        job = ns.get("finetunejob", NAME) or {}
        status = job.get("status") or {}
        if step := step_of(status, 3):
            steps.append(step)
        if status.get("phase") == "Finishing" and "Finishing" not in replaced:
            lose_operator(ns, "Finishing")
        return is_true(job, "Finished")

    until(ended, "the job's end", TRAINING_SECONDS, interval=1)
    return steps


def test_the_plan_is_two_processes_with_zero_2(ns: Kube, killed: dict[str, int]) -> None:
    plan = state(ns)["plan"]
    assert (plan["method"], plan["worldSize"], plan["zeroStage"]) == ("Full", 2, 2)
    assert plan["trainableParameters"] == plan["parameters"]


def test_promtool_finds_no_fault_in_the_trainers_metrics(killed: dict[str, int]) -> None:
    assert [f'hone_train_step{{rank="{rank}"}}' in text for rank, text in enumerate(expositions)] == [True, True]
    assert [lint(text) for text in expositions] == ["", ""]


def test_a_stranger_is_no_rank_even_where_no_policy_stops_it(killed: dict[str, int]) -> None:
    assert strangers == [False]


def test_the_killed_rank_is_named_as_the_cause(ns: Kube, resumed: list[int]) -> None:
    first = trainings(state(ns))[0]
    assert first["result"] == "Failed"
    assert first["failure"]["class"] == "Crashed"
    assert (first["failure"]["rank"], first["failure"]["node"]) == (1, 1)
    assert "SIGKILL" in first["failure"]["message"]


def test_the_attempt_after_the_kill_went_on_from_the_checkpoint(
    killed: dict[str, int], evicted: dict[str, int]
) -> None:
    assert killed["checkpoint"] <= evicted["first"] < killed["total"]


def test_the_eviction_is_named_as_the_cause_and_counts_no_retry(
    ns: Kube, evicted: dict[str, int], resumed: list[int]
) -> None:
    second = trainings(state(ns))[1]
    assert second["result"] == "Failed"
    assert (second["failure"]["class"], second["failure"]["node"]) == ("Preempted", 1)
    assert "Eviction" in second["failure"]["message"]
    assert state(ns)["failures"] == {"train.Crashed": 1, "train.Preempted": 1}
    assert state(ns)["usage"]["retries"] == evicted["retries"] == 1


def test_the_attempt_after_the_eviction_lost_no_step(
    ns: Kube, killed: dict[str, int], evicted: dict[str, int], resumed: list[int]
) -> None:
    assert resumed, "the third attempt reported no step"
    assert min(resumed) >= evicted["last"], "both pods saved what they had, though only one was evicted"
    assert max(resumed) <= killed["total"]
    third = trainings(state(ns))[2]
    assert (third["number"], third["result"]) == (3, "Succeeded")
    assert state(ns)["progress"]["step"] == killed["total"]


def test_it_completes_and_the_tuned_model_is_better_outside_the_interval(ns: Kube, resumed: list[int]) -> None:
    job = finished(ns, NAME, 5)
    assert is_true(job, "Complete"), job["status"]["conditions"]
    score = job["status"]["evaluation"]["scores"][0]
    assert score["improvement"]["lower"] > 0
    assert score["tuned"]["lower"] > score["base"]["upper"]


def test_the_artifact_is_a_whole_model_that_needs_no_base(ns: Kube, resumed: list[int]) -> None:
    artifact = state(ns)["artifact"]
    assert artifact["kind"] == "Model"
    assert artifact["sizeBytes"] > 4 * state(ns)["plan"]["parameters"] * 0.9


def test_the_operator_lost_in_each_phase_made_nothing_twice(ns: Kube, resumed: list[int]) -> None:
    assert replaced == ["Preparing", "Training", "Finishing"]
    uid = (ns.get("finetunejob", NAME) or {})["metadata"]["uid"]
    jobs = [job["metadata"]["name"] for job in ns.list("job", f"hone.dev/uid={uid}")]
    assert sorted("-".join(name.rsplit("-", 2)[1:]) for name in jobs) == [
        "finish-1",
        "prepare-1",
        "train-3",
    ], "of each step, the last one stays"
    attempts = [attempt["job"] for attempt in state(ns)["attempts"]]
    assert len(attempts) == len(set(attempts)) == 5 and set(jobs) < set(attempts)


def test_training_left_only_finished_jobs_behind(ns: Kube, resumed: list[int]) -> None:
    pods = ns.list("pod", "hone.dev/step in (prepare, train, finish)")
    assert {pod["status"]["phase"] for pod in pods} <= {"Succeeded", "Failed"}
