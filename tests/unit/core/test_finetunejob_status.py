"""Figures and times in the status, and the Events that they make."""

from tests.unit.core import make
from tests.unit.core.runs import preparing, training


def test_gpu_seconds_end_with_the_pods_though_the_operator_sees_it_late() -> None:
    world = training(compute={"gpusPerNode": 1})
    world.complete(make.trained())
    world.later(86_400).settle()
    assert world.status["usage"]["gpuSeconds"] == 60


def test_gpu_seconds_are_those_of_training_and_finish() -> None:
    world = training(compute={"nodes": 2, "gpusPerNode": 4})
    world.later(100)
    world.complete(make.trained())  # its containers began 60 s ago
    world.settle()
    assert world.status["usage"]["gpuSeconds"] == 2 * 4 * 60
    world.later(60)
    world.complete(make.finished())
    world.settle()
    assert world.status["usage"]["gpuSeconds"] == 2 * 4 * 60 + 60


def test_the_spec_is_frozen_from_the_first_trainer_job_on() -> None:
    world = preparing()
    world.complete(make.prepared())
    world.later(5).settle()
    assert world.status["startTime"] == "2026-01-01T00:00:05Z"


def test_the_plans_warnings_are_told() -> None:
    world = preparing()
    world.complete(make.prepared(warnings=["only 40 rows"]))
    world.settle()
    assert world.condition("Validated") == ("True", "ValidatedWithWarnings")
    assert "PlanWarning" in world.reasons()
