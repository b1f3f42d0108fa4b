"""Figures and times in the status, and the Events that they make."""

from tests.unit.core import make
from tests.unit.core.runs import preparing, training


def test_gpu_seconds_end_with_the_pods_though_the_operator_sees_it_late() -> None:
    cluster = training(compute={"gpusPerNode": 1})
    cluster.complete(make.trained())
    cluster.later(86_400).converge()
    assert cluster.status["usage"]["gpuSeconds"] == 60


def test_gpu_seconds_are_those_of_training_and_finish() -> None:
    cluster = training(compute={"nodes": 2, "gpusPerNode": 4})
    cluster.later(100)
    cluster.complete(make.trained())  # its containers began 60 s ago
    cluster.converge()
    assert cluster.status["usage"]["gpuSeconds"] == 2 * 4 * 60
    cluster.later(60)
    cluster.complete(make.finished())
    cluster.converge()
    assert cluster.status["usage"]["gpuSeconds"] == 2 * 4 * 60 + 60


def test_the_spec_is_frozen_from_the_first_trainer_job_on() -> None:
    cluster = preparing()
    cluster.complete(make.prepared())
    cluster.later(5).converge()
    assert cluster.status["startTime"] == "2026-01-01T00:00:05Z"


def test_the_plans_warnings_are_told() -> None:
    cluster = preparing()
    cluster.complete(make.prepared(warnings=["only 40 rows"]))
    cluster.converge()
    assert cluster.condition("Validated") == ("True", "ValidatedWithWarnings")
    assert "PlanWarning" in cluster.reasons()
