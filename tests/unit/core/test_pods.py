"""What a pod's status tells."""

from typing import Any

import pytest

from hone.core.observed import Pod
from hone.core.pods import has_started, is_over, trouble
from tests.unit.core.make import RUNNING, exited, pod


def unschedulable(reason: str = "Unschedulable", why: str = "") -> list[dict[str, Any]]:
    words = f"0/3 nodes are available{why}"
    return [{"type": "PodScheduled", "status": "False", "reason": reason, "message": words}]


UNBOUND = ": pod has unbound immediate PersistentVolumeClaims. preemption: 0/3 nodes are available"


def waiting(reason: str, message: str = "words") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("case", "observed", "want"),
    [
        ("runs", pod(phase="Running", state=RUNNING), None),
        ("is being started", pod(state=waiting("ContainerCreating")), None),
        ("finds no node", pod(conditions=unschedulable()), "Unschedulable"),
        ("has no volume yet", pod(conditions=unschedulable(why=UNBOUND)), "ClaimNotBound"),
        ("waits for its queue", pod(conditions=unschedulable("SchedulingGated")), None),
        ("cannot pull", pod(state=waiting("ErrImagePull")), "ImagePullBackOff"),
        ("still cannot pull", pod(state=waiting("ImagePullBackOff")), "ImagePullBackOff"),
        ("has a bad image name", pod(state=waiting("InvalidImageName")), "InvalidImageName"),
        ("lacks a ConfigMap", pod(state=waiting("CreateContainerConfigError")), "CreateContainerConfigError"),
        ("is being deleted", pod(state=waiting("ErrImagePull"), deleted=True), None),
        ("is gone", pod(state=waiting("ErrImagePull"), gone=True), None),
        ("has ended", pod(phase="Failed", state=exited(1)), None),
    ],
)
def test_trouble(case: str, observed: Pod, want: str | None) -> None:
    shown = trouble([observed])
    assert (shown.reason if shown else None) == want, case
    assert shown is None or "p-0" in shown.message


def test_the_two_states_of_a_failing_pull_read_the_same() -> None:
    first = trouble([pod(state=waiting("ErrImagePull", "rpc error: not found"))])
    again = trouble(
        [pod(state=waiting("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: rpc error: not found'))]
    )
    assert first == again


@pytest.mark.parametrize(
    ("observed", "started", "over"),
    [
        (pod(), False, False),
        (pod(state=waiting("ContainerCreating")), False, False),
        (pod(phase="Running", state=RUNNING), True, False),
        (pod(phase="Succeeded", state=exited(0)), True, True),
        (pod(phase="Failed", reason="OutOfcpu"), False, True),
        (pod(phase="Running", state=RUNNING, deleted=True), True, False),
        (pod(phase="Running", state=RUNNING, gone=True), True, True),
    ],
)
def test_started_and_over(observed: Pod, started: bool, over: bool) -> None:
    assert (has_started(observed), is_over(observed)) == (started, over)
