"""Which pod is asked for progress, and what of its answer is shown."""

from typing import Any

import pytest

from hone.contract.progress import Progress
from hone.core.kinds import KINDS
from hone.core.observed import Pod, ProgressReading
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.runs import preparing, training

JOB = KINDS["FineTuneJob"]


def reading(cluster: FakeCluster, **values: Any) -> ProgressReading:
    target = JOB.progress_target(cluster.resource, tuple(Pod(pod) for pod in cluster.pods.values()))
    assert target is not None
    values = {"pod_uid": target.pod_uid, "observed_time": 1_767_225_600.0, **values}
    return ProgressReading(target.pod_uid, Progress(**values))


def test_the_pod_of_rank_zero_is_asked() -> None:
    cluster = training(compute={"gpusPerNode": 0, "nodes": 2})
    target = JOB.progress_target(cluster.resource, tuple(Pod(pod) for pod in cluster.pods.values()))
    assert target is not None and target.pod_ip == "10.0.0.1"
    assert JOB.progress_target(preparing().resource, ()) is None


def test_progress_is_shown() -> None:
    cluster = training()
    cluster.progress = reading(
        cluster,
        step=90,
        total_steps=300,
        loss=1.23456,
        seconds_per_step=4,
        tokens_per_second=812.34,
        checkpoint_step=60,
    )
    plan = cluster.reconcile()
    assert cluster.condition("ProgressAvailable") == ("True", "Reporting")
    assert cluster.status["progress"] == {
        "step": 90,
        "totalSteps": 300,
        "percent": 30,
        "epoch": 0.0,
        "loss": "1.235",
        "tokensPerSecond": 812.3,
        "eta": "14m",
        "estimatedCompletionTime": "2026-01-01T00:14:00Z",
        "observedTime": "2026-01-01T00:00:00Z",
    }
    assert cluster.status["checkpoint"] == {"step": 60}
    assert plan.requeue_after is None, "the next reading that differs triggers the next reconcile"
    assert cluster.reconcile().status is None


RISING = "The loss on the validation rows rises since step 40: from 0.5 to 0.8 at step 80."


def test_a_rising_validation_loss_is_a_warning_with_one_event() -> None:
    cluster = training()
    figures = {"total_steps": 300, "eval_loss": 0.8, "best_step": 40, "best_eval_loss": 0.5}
    cluster.progress = reading(cluster, step=80, validation_warning=RISING, **figures)
    cluster.reconcile()
    shown = cluster.status["progress"]
    assert (shown["evalLoss"], shown["bestEvalLoss"], shown["bestStep"], shown["warning"]) == ("0.8", "0.5", 40, RISING)
    cluster.progress = reading(cluster, step=90, validation_warning=f"{RISING} Again.", **figures)
    cluster.converge()
    assert cluster.reasons().count("ValidationLossRising") == 1


def test_the_best_step_is_shown_after_the_end_though_nobody_read_it_before() -> None:
    cluster = training()
    cluster.complete(make.trained(best_step=40, best_eval_loss=0.5, validation_warning=RISING))
    cluster.converge()
    shown = cluster.status["progress"]
    assert (shown["percent"], shown["bestStep"], shown["bestEvalLoss"], shown["warning"]) == (100, 40, "0.5", RISING)
    assert "ValidationLossRising" in cluster.reasons()


def test_the_reward_of_a_models_own_answers_is_shown_with_four_digits() -> None:
    cluster = training()
    cluster.progress = reading(cluster, step=1, total_steps=300, loss=0.0, reward=0.71875)
    cluster.reconcile()
    assert (cluster.status["progress"]["loss"], cluster.status["progress"]["reward"]) == ("0", "0.7188")


@pytest.mark.parametrize(
    ("case", "change", "reason"),
    [
        ("no answer", {"progress": None, "error": "timed out"}, "Unreachable"),
        ("the address is another pod's", {"progress": Progress(pod_uid="someone")}, "OtherPod"),
    ],
)
def test_unreachable_is_not_stuck(case: str, change: dict[str, Any], reason: str) -> None:
    cluster = training()
    cluster.progress = reading(cluster, step=90, total_steps=300)
    cluster.reconcile()
    cluster.progress = ProgressReading(cluster.progress.pod_uid, **change)
    cluster.reconcile()
    assert cluster.condition("ProgressAvailable") == ("False", reason)
    assert cluster.status["progress"]["step"] == 90
    assert cluster.status["phase"] == "Training"


@pytest.mark.parametrize(
    "values",
    [
        {"observed_time": 1e14},
        {"seconds_per_step": 9e14, "step": 1, "total_steps": 10**12},
        {"seconds_per_step": 3e5, "total_steps": 1000, "observed_time": 9.9e10},
    ],
)
def test_unbelievable_times_are_not_shown(values: dict[str, Any]) -> None:
    cluster = training()
    cluster.progress = reading(cluster, **values)
    cluster.reconcile()
    assert cluster.condition("ProgressAvailable") == ("True", "Reporting")


def test_a_reading_of_an_earlier_attempt_is_not_taken() -> None:
    cluster = training()
    cluster.progress = ProgressReading("pod-of-before", Progress(step=299, total_steps=300))
    cluster.reconcile()
    assert cluster.condition("ProgressAvailable") == ("Unknown", "NotAskedYet")
    assert "progress" not in cluster.status


def test_an_operator_that_has_just_started_leaves_what_the_last_one_was_told_until_the_first_answer() -> None:
    cluster = training()
    cluster.progress = reading(cluster, step=90, total_steps=300)
    cluster.reconcile()
    cluster.progress = None
    assert cluster.reconcile().status is None
    assert cluster.condition("ProgressAvailable") == ("True", "Reporting")


def test_how_far_a_download_is_is_shown_in_bytes() -> None:
    cluster = preparing()
    cluster.start()
    figures = {"downloaded_bytes": 5_000_000_000, "total_bytes": 15_000_000_000, "bytes_per_second": 50_000_000.4}
    cluster.progress = reading(cluster, stage="Downloading", **figures)
    cluster.converge()
    assert cluster.status["preparation"] == {
        "stage": "Downloading",
        "downloadedBytes": 5_000_000_000,
        "totalBytes": 15_000_000_000,
        "bytesPerSecond": 50_000_000,
        "eta": "3m",
        "observedTime": "2026-01-01T00:00:00Z",
    }
    cluster.progress = reading(cluster, stage="Downloading", downloaded_bytes=9)
    cluster.reconcile()
    assert cluster.status["preparation"].keys() == {"stage", "downloadedBytes", "observedTime"}


def test_how_far_prepare_is_with_the_rows_is_shown_while_it_runs() -> None:
    cluster = preparing()
    cluster.start()
    figures = {"stage": "Tokenizing", "rows": 250_000, "total_rows": 1_000_000, "rows_per_second": 1250.04}
    cluster.progress = reading(cluster, **figures)
    cluster.converge()
    assert cluster.status["preparation"] == {
        "stage": "Tokenizing",
        "rows": 250_000,
        "totalRows": 1_000_000,
        "rowsPerSecond": 1250.0,
        "eta": "10m",
        "observedTime": "2026-01-01T00:00:00Z",
    }
    assert cluster.condition("ProgressAvailable")[1] == "NotTraining"
    assert "progress" not in cluster.status
    cluster.progress = reading(cluster, stage="CheckingRows", rows=9, total_rows=0, rows_per_second=0.0)
    cluster.reconcile()
    assert cluster.status["preparation"] == {
        "stage": "CheckingRows",
        "rows": 9,
        "totalRows": 0,
        "rowsPerSecond": 0.0,
        "observedTime": "2026-01-01T00:00:00Z",
    }
    cluster.progress = reading(cluster, stage="Starting")
    cluster.reconcile()
    assert "preparation" not in cluster.status
    cluster.progress = reading(cluster, **figures)
    cluster.reconcile()
    shown = cluster.status["preparation"]
    cluster.progress = ProgressReading(cluster.progress.pod_uid, error="refused")
    cluster.reconcile()
    assert cluster.status["preparation"] == shown
    cluster.progress = None
    cluster.complete(make.prepared())
    cluster.converge()
    assert "preparation" not in cluster.status


@pytest.mark.parametrize(
    "values",
    [
        {"stage": "Starting"},
        {"stage": "<b>Tokenizing</b>", "rows": 1},
        {"stage": "Tokenizing"},
        {"stage": "Tokenizing", "rows": 1, "pod_uid": "another"},
    ],
)
def test_a_prepare_pod_that_reports_no_rows_shows_nothing(values: dict[str, Any]) -> None:
    cluster = preparing()
    cluster.start()
    cluster.progress = reading(cluster, **values)
    cluster.reconcile()
    assert "preparation" not in cluster.status
    cluster.progress = ProgressReading(cluster.progress.pod_uid, error="refused")
    assert cluster.reconcile().status is None


def test_a_time_left_that_no_date_can_hold_is_not_shown() -> None:
    cluster = preparing()
    cluster.start()
    cluster.progress = reading(cluster, stage="Tokenizing", rows=1, total_rows=2**31 - 1, rows_per_second=1e-9)
    cluster.reconcile()
    assert "eta" not in cluster.status["preparation"]
