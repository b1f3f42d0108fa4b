"""What an attempt adjusted by itself: shown, reported once, limited, and never counted."""

from typing import Any

import pytest

from hone.api.finetunejob_status import AttemptStatus
from hone.contract.progress import Progress
from hone.core.finetunejob.policies.adjustments import adjusted
from hone.core.kinds import KINDS
from hone.core.observed import Pod, ProgressReading
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.runs import training

SMALLER = "micro-batch 4 instead of 8, with the same 16 rows per step: out of memory at step 7"
SMALLEST = "micro-batch 2 instead of 8, with the same 16 rows per step: out of memory at step 9"


def attempt(**values: Any) -> AttemptStatus:
    return AttemptStatus(step="train", number=1, job="j", result="Running", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "before", "reported", "want"),
    [
        ("nothing", None, [], None),
        ("a sentence", None, [SMALLER], [SMALLER]),
        ("another one comes after it", [SMALLER], [SMALLER, SMALLEST], [SMALLER, SMALLEST]),
        ("what is no longer reported stays", [SMALLER], [], [SMALLER]),
        ("the same is recorded once", [SMALLER], [SMALLER, SMALLER], [SMALLER]),
        ("no line breaks", None, ["a\nb\r\n\tc "], ["a b c"]),
        ("no half of a character", None, ["a \ud800 b"], ["a \\ud800 b"]),
        ("no empty ones", None, ["", " \n "], None),
        ("at most eight", None, [f"{n}" for n in range(20)], [f"{n}" for n in range(8)]),
        ("of which the first stay", ["first"], [f"{n}" for n in range(20)], ["first", *(f"{n}" for n in range(7))]),
        ("at most 256 characters", None, ["x" * 300], ["x" * 255 + "…"]),
    ],
)
def test_changes(case: str, before: list[str] | None, reported: list[str], want: list[str] | None) -> None:
    result = adjusted(attempt(changes=before), 0, reported)
    assert result.changes == want, case
    assert adjusted(result, 0, reported) == result, "reported again, nothing changes"


@pytest.mark.parametrize(("before", "reported", "want"), [(None, 0, None), (None, 2, 2), (2, 3, 3), (3, 1, 3)])
def test_restarts_never_shrink(before: int | None, reported: int, want: int | None) -> None:
    assert adjusted(attempt(restarts=before), reported, []).restarts == want


def tells(cluster: FakeCluster, **values: Any) -> None:
    target = KINDS["FineTuneJob"].progress_target(cluster.resource, tuple(Pod(pod) for pod in cluster.pods.values()))
    assert target is not None
    progress = Progress(pod_uid=target.pod_uid, step=7, total_steps=300, **values)
    cluster.progress = ProgressReading(target.pod_uid, progress)
    cluster.converge()


def test_out_of_memory_that_one_pod_mends_is_shown_and_told_once_but_not_counted() -> None:
    cluster = training(retry={"limit": 0})
    tells(cluster, restarts=1, changes=[SMALLER])
    shown = cluster.status["attempts"][-1]
    assert (shown["result"], shown["restarts"], shown["changes"]) == ("Running", 1, [SMALLER])
    assert cluster.status["usage"]["retries"] == 0 and cluster.status["failures"] == {}
    tells(cluster, restarts=1, changes=[SMALLER])
    tells(cluster, restarts=2, changes=[SMALLER, SMALLEST])
    adjustments = [event.message for event in cluster.events if event.reason == "TrainingAdjusted"]
    assert adjustments == [f"train, attempt 1: {SMALLER}", f"train, attempt 1: {SMALLEST}"]
    assert cluster.jobs() == ["prepare-1", "train-1"]


def test_what_was_not_read_in_time_is_in_the_result() -> None:
    cluster = training()
    cluster.complete(make.trained().model_copy(update={"restarts": 2, "changes": [SMALLER]}))
    cluster.converge()
    trained = next(each for each in cluster.status["attempts"] if each["step"] == "train")
    assert (trained["result"], trained["restarts"], trained["changes"]) == ("Succeeded", 2, [SMALLER])
    assert cluster.reasons().count("TrainingAdjusted") == 1


def test_what_a_failed_attempt_tried_stays_with_it() -> None:
    cluster = training()
    cluster.fail(70, make.verdict("Crashed").model_copy(update={"restarts": 1, "changes": [SMALLER]}))
    cluster.converge()
    first, second = (each for each in cluster.status["attempts"] if each["step"] == "train")
    assert (first["restarts"], first["changes"]) == (1, [SMALLER])
    assert not {"restarts", "changes"} & set(second)
