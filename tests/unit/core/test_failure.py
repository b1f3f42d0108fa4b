"""Why a Job failed: pods and the Job's words in, class out."""

from typing import Any

import pytest

from hone.contract.exits import FailureClass as C
from hone.core.finetunejob.policies.failure import cause
from hone.core.observed import Pod
from tests.unit.core.make import exited, failed_job, pod, verdict

DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}]
NODE_GONE = [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": "node is gone"}]


def failed(code: int, left: Any = "", index: int = 0, reason: str = "", **more: Any) -> Pod:
    return pod(f"p-{index}", index=index, phase="Failed", state=exited(code, left, reason), **more)


@pytest.mark.parametrize(
    ("case", "pods", "want"),
    [
        ("a verdict says it", [failed(65, verdict("OutOfMemory"))], C.OUT_OF_MEMORY),
        ("no verdict, our exit code", [failed(67)], C.HUNG),
        ("no verdict, an unknown exit code", [failed(3)], C.CRASHED),
        ("killed for host memory, launcher included", [failed(137, reason="OOMKilled")], C.HOST_OUT_OF_MEMORY),
        ("one rank killed for host memory", [failed(70, verdict("Crashed"), reason="OOMKilled")], C.HOST_OUT_OF_MEMORY),
        ("OOMKilled does not hide bad input", [failed(64, verdict("BadInput"), reason="OOMKilled")], C.BAD_INPUT),
        ("137 without a reason", [failed(137)], C.HOST_OUT_OF_MEMORY),
        ("137 after a deletion is the end of its grace", [failed(137, deleted=True)], C.PREEMPTED),
        ("143 after a deletion", [failed(143, deleted=True)], C.PREEMPTED),
        ("evicted", [failed(75, conditions=DISRUPTED)], C.PREEMPTED),
        ("evicted, whatever it left", [failed(70, verdict("Crashed"), conditions=DISRUPTED)], C.PREEMPTED),
        ("collected with its node", [pod(phase="Running", conditions=NODE_GONE, deleted=True)], C.NODE_LOST),
        ("its node is silent", [pod(phase="Unknown")], C.NODE_LOST),
        ("deleted by hand, saved itself", [failed(75, verdict("Preempted"), deleted=True)], C.PREEMPTED),
        ("deleted and gone before anything was seen", [pod(phase="Running", gone=True)], C.PREEMPTED),
        ("refused by the kubelet", [pod(phase="Failed", reason="OutOfcpu", message="no cpu")], C.NEVER_STARTED),
        ("no pods, no words", [], C.CRASHED),
    ],
)  # fmt: skip
def test_one_pod(case: str, pods: list[Pod], want: C) -> None:
    assert cause(failed_job(), pods).failure_class == want, case


@pytest.mark.parametrize(
    ("case", "pods", "want"),
    [
        (
            "one crashed; the Job deleted the other, which saved itself",
            [failed(70, verdict("Crashed")), failed(75, verdict("Preempted"), 1, deleted=True)],
            C.CRASHED,
        ),
        (
            "one crashed, the other lost contact",
            [failed(68, verdict("Communication")), failed(70, verdict("Crashed"), 1)],
            C.CRASHED,
        ),
        (
            "one was evicted, the other lost contact",
            [failed(75, conditions=DISRUPTED), failed(68, verdict("Communication"), 1)],
            C.PREEMPTED,
        ),
        (
            "one was deleted by hand, the other lost contact",
            [failed(75, verdict("Preempted"), deleted=True), failed(68, verdict("Communication"), 1)],
            C.PREEMPTED,
        ),
        (
            "out of memory on one, crash on another: memory comes first",
            [failed(70, verdict("Crashed")), failed(65, verdict("OutOfMemory"), 1)],
            C.OUT_OF_MEMORY,
        ),
        (
            "one waited for the other in vain, which the Job deleted before it started",
            [failed(69, verdict("NeverStarted")), pod("p-1", index=1, phase="Pending", deleted=True)],
            C.NEVER_STARTED,
        ),
        (
            "one never started, the other crashed",
            [pod("p-0", phase="Failed", reason="OutOfcpu"), failed(70, verdict("Crashed"), 1)],
            C.CRASHED,
        ),
        (
            "one ended well, the other was killed",
            [pod("p-0", phase="Succeeded", state=exited(0)), failed(70, "", 1)],
            C.CRASHED,
        ),
    ],
)
def test_a_gang(case: str, pods: list[Pod], want: C) -> None:
    assert cause(failed_job(), pods).failure_class == want, case
    assert cause(failed_job(), reversed(pods)).failure_class == want, f"{case}, reversed"


@pytest.mark.parametrize(
    ("message", "want", "code"),
    [
        ("Container train for pod ns/p-0-x failed with exit code 67 matching FailJob rule at index 1", C.HUNG, 67),
        ("Container train for pod ns/p-0-x failed with exit code 137 matching FailJob rule at index 1",
         C.HOST_OUT_OF_MEMORY, 137),
        ("Pod ns/p-1-y has condition DisruptionTarget matching FailJob rule at index 0", C.PREEMPTED, None),
        ("Job has reached the specified backoff limit", C.CRASHED, None),
    ],
)  # fmt: skip
def test_the_jobs_own_words_where_the_pods_are_gone(message: str, want: C, code: int | None) -> None:
    outcome = cause(failed_job(message), [])
    assert (outcome.failure_class, outcome.exit_code, outcome.message) == (want, code, message)


@pytest.mark.parametrize(
    ("message", "left", "want"),
    [
        ("Container train for pod ns/p-0-x failed with exit code 70 matching FailJob rule at index 1",
         failed(75, verdict("Preempted"), 1, deleted=True, gone=True), C.CRASHED),
        ("Pod ns/p-0-x has condition DisruptionTarget matching FailJob rule at index 0",
         failed(70, verdict("Crashed"), 1, deleted=True, gone=True), C.PREEMPTED),
        ("Container train for pod ns/p-0-x failed with exit code 68 matching FailJob rule at index 1",
         failed(70, verdict("Crashed"), 1), C.CRASHED),
    ],
)  # fmt: skip
def test_the_jobs_words_stand_in_for_the_pod_that_they_name_if_it_is_gone(message: str, left: Pod, want: C) -> None:
    assert cause(failed_job(message), [left]).failure_class == want


def test_of_two_equal_causes_the_one_that_the_job_names_is_told() -> None:
    pods = [failed(70, verdict("Crashed", "first")), failed(70, verdict("Crashed", "second"), 1)]
    job = failed_job("Container train for pod ns/p-1 failed with exit code 70 matching FailJob rule at index 1")
    assert cause(job, pods).message == "second"


def test_the_deadline_of_the_job() -> None:
    job = failed_job(reason="DeadlineExceeded", activeDeadlineSeconds=60)
    outcome = cause(job, [failed(75, deleted=True)])
    assert outcome.failure_class == C.DEADLINE_EXCEEDED
    assert "60" in outcome.message
    assert "activeDeadlineSeconds" in (outcome.hint or "")


def test_what_a_verdict_tells_is_kept() -> None:
    left = verdict("Crashed", "rank 3: ValueError", hint="fix it", rank=3, node=1, exit_code=-9, step=120)
    outcome = cause(failed_job(), [failed(70, left)])
    assert (outcome.message, outcome.hint, outcome.rank, outcome.node, outcome.exit_code, outcome.step) == (
        "rank 3: ValueError", "fix it", 3, 1, -9, 120,
    )  # fmt: skip
    assert outcome.final is None


def test_a_verdict_may_be_final() -> None:
    assert cause(failed_job(), [failed(65, verdict("OutOfMemory", final=True))]).final is True


def test_a_pod_that_outgrew_its_scratch_space_is_no_preemption() -> None:
    """Nothing would bound the attempts, each of which is evicted again."""
    words = 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi". '
    for left in (exited(137), exited(75, verdict("Preempted"))):
        outcome = cause(failed_job(), [pod("p-0", phase="Failed", state=left, reason="Evicted", message=words)])
        assert (outcome.failure_class, outcome.message) == (C.CRASHED, f"pod p-0: Evicted: {words}")


def test_an_eviction_for_the_nodes_sake_is_one() -> None:
    pressed = [
        {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "low on disk"}
    ]
    evicted = pod("p-0", phase="Failed", state=exited(137), reason="Evicted", message="low on disk", conditions=pressed)
    assert cause(failed_job(), [evicted]).failure_class == C.PREEMPTED


def test_without_a_verdict_the_last_words_and_the_pods_index_are_told() -> None:
    outcome = cause(failed_job(), [failed(1, "ModuleNotFoundError: no module named hone_trainer", 2)])
    assert outcome.message == "pod p-2 ended with exit code 1: ModuleNotFoundError: no module named hone_trainer"
    assert (outcome.node, outcome.exit_code) == (2, 1)


@pytest.mark.parametrize(
    "left",
    [
        '{"step": "train", "verdict": {"class": "Crashed", "message": "m", "time": 1e999}}',
        '{"step": "train", "verdict": {"class": "Crashed", "message": "m", "time": NaN}}',
        '{"step": "train", "verdict": {"class": "Crashed", "message": "m", "step": 9999999999999999999999}}',
        '{"step": "train", "verdict": {"class": "NoSuchClass", "message": "m"}}',
        '{"step": "train", "finalStep": -5, "verdict": {"class": "Crashed", "message": "m"}}',
        '{"step": "train", "version": 99, "verdict": {"class": "Crashed", "message": "m"}}',
        '{"step": "train", "verdict": {"class": "Crashed", "message": "' + "m" * 2000 + '"}}',
    ],
)
def test_what_no_status_can_hold_is_no_result(left: str) -> None:
    assert cause(failed_job(), [failed(67, left)]).failure_class == C.HUNG


def test_a_message_never_outgrows_the_api() -> None:
    outcome = cause(failed_job("x" * 5000), [])
    assert len(outcome.message) <= 1024


@pytest.mark.parametrize(
    ("step", "field"),
    [("prepare", "spec.prepare.resources.limits.memory"), ("train", "spec.compute.resources.limits.memory")],
)
def test_too_little_memory_names_the_limit_of_the_pod_that_it_was_too_little_for(step: str, field: str) -> None:
    job = failed_job()
    job["metadata"]["labels"] = {"hone.dev/step": step}
    outcome = cause(job, [failed(137, reason="OOMKilled")])
    assert outcome.failure_class == C.HOST_OUT_OF_MEMORY and outcome.hint and outcome.hint.startswith(f"raise {field}")
    crashed = cause(job, [failed(70, verdict("Crashed", hint="its own"))])
    assert crashed.hint == "its own"
