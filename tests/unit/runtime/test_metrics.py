"""The metrics' names and text, the gauges per resource, and their end."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hone.core.times import parse, rfc3339
from hone.runtime import resource_metrics
from hone.runtime.metrics import Metrics

STATUS = {
    "phase": "Training",
    "progress": {"step": 25, "totalSteps": 50, "loss": "1.5000", "reward": "0.75", "tokensPerSecond": 900.5},
    "usage": {"retries": 2, "gpuSeconds": 40},
}


NOW = parse("2026-01-01T12:00:00Z").timestamp()


def filled(status: dict[str, Any]) -> Metrics:
    """Metrics after a look at a FineTuneJob `ns/sft`."""
    metrics = Metrics(clock=lambda: NOW)
    metrics.controller("finetunejob", workers=4)
    metrics.resources.observe("FineTuneJob", "ns", "sft", {"status": status})
    metrics.resources.observe("ModelDeployment", "ns", "sft", {"status": {"phase": "Available", "readyReplicas": 2}})
    metrics.request("GET", "200")
    return metrics


def value(metrics: Metrics, series: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(series, labels)


def test_the_gauges_follow_the_status() -> None:
    metrics, of = filled(STATUS), {"namespace": "ns", "name": "sft"}
    assert value(metrics, "hone_finetunejob_step", **of) == 25
    assert value(metrics, "hone_finetunejob_total_steps", **of) == 50
    assert value(metrics, "hone_finetunejob_loss", **of) == 1.5
    assert value(metrics, "hone_finetunejob_reward", **of) == 0.75
    assert value(metrics, "hone_finetunejob_tokens_per_second", **of) == 900.5
    assert value(metrics, "hone_finetunejob_retries", **of) == 2
    assert value(metrics, "hone_finetunejob_phase", phase="Training", **of) == 1
    assert value(metrics, "hone_finetunejob_phase", phase="Succeeded", **of) == 0
    assert value(metrics, "hone_modeldeployment_ready_replicas", **of) == 2


def test_what_a_resource_waits_for_is_one_series_with_its_reason() -> None:
    conditions = [
        {"type": "Ready", "status": "False", "reason": "Unschedulable"},
        {"type": "Reconciling", "status": "True", "reason": "Unschedulable"},
        {"type": "Stalled", "status": "False", "reason": "NotStalled"},
    ]
    metrics, of = filled({"phase": "Queued", "conditions": conditions}), {"namespace": "ns", "name": "sft"}
    assert value(metrics, "hone_finetunejob_condition", type="Reconciling", reason="Unschedulable", **of) == 1
    assert metrics.text().count(b"hone_finetunejob_condition{") == 1
    ready = filled({"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "True", "reason": "Done"}]})
    assert b"hone_finetunejob_condition{" not in ready.text()


def test_what_is_not_known_has_no_series() -> None:
    metrics = filled({"phase": "Pending", "progress": {"loss": "nan"}})
    assert value(metrics, "hone_finetunejob_loss", namespace="ns", name="sft") is None
    assert value(metrics, "hone_finetunejob_step", namespace="ns", name="sft") is None


@pytest.mark.parametrize("phase", ["Queued", "Finishing", "Succeeded", "Failed", "Suspended"])
def test_what_only_a_running_trainer_measures_ends_with_it(phase: str) -> None:
    metrics, of = filled({**STATUS, "phase": phase}), {"namespace": "ns", "name": "sft"}
    assert value(metrics, "hone_finetunejob_loss", **of) is None
    assert value(metrics, "hone_finetunejob_tokens_per_second", **of) is None
    assert value(metrics, "hone_finetunejob_step", **of) == 25, "what was reached stays"


def test_a_deleted_resource_leaves_no_series() -> None:
    metrics = filled(STATUS)
    metrics.resources.forget("FineTuneJob", "ns", "sft")
    metrics.resources.forget("ModelDeployment", "ns", "sft")
    assert b'name="sft"' not in metrics.text()


def ended(seconds: float, phase: str = "Succeeded") -> dict[str, Any]:
    """The status of a job that ended so many seconds ago."""
    return {**STATUS, "phase": phase, "completionTime": rfc3339(datetime.fromtimestamp(NOW - seconds, UTC))}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_job_that_ended_long_ago_is_only_counted(phase: str) -> None:
    of = {"namespace": "ns", "name": "sft", "phase": phase}
    recent, old = filled(ended(3500, phase)), filled(ended(3700, phase))
    assert value(recent, "hone_finetunejob_phase", **of) == 1
    assert b'name="sft"' in recent.text()
    assert value(old, "hone_finetunejob_phase", **of) is None
    assert value(old, "hone_finetunejob_step", namespace="ns", name="sft") is None
    assert value(recent, "hone_finetunejobs", phase=phase) == value(old, "hone_finetunejobs", phase=phase) == 1


def test_the_series_of_a_job_end_an_hour_after_it_although_nobody_looks_at_it_again() -> None:
    now = [NOW]
    metrics, of = Metrics(clock=lambda: now[0]), {"namespace": "ns", "name": "sft"}
    metrics.resources.observe("FineTuneJob", "ns", "sft", {"status": ended(0)})
    assert value(metrics, "hone_finetunejob_step", **of) == 25
    now[0] += 3601
    assert value(metrics, "hone_finetunejob_step", **of) is None
    metrics.resources.observe("FineTuneJob", "ns", "sft", {"status": STATUS})
    assert value(metrics, "hone_finetunejob_step", **of) == 25, "it runs again, after an edit"


def test_resources_are_counted_by_their_phase() -> None:
    metrics = filled(STATUS)
    for number in range(3):
        metrics.resources.observe("FineTuneJob", "ns", f"new-{number}", {})
        metrics.resources.observe("FineTuneJob", "ns", f"new-{number}", {"status": {"phase": "Pending"}})
    metrics.resources.forget("FineTuneJob", "ns", "new-0")
    metrics.resources.forget("FineTuneJob", "ns", "never-seen")
    counts = {each: value(metrics, "hone_finetunejobs", phase=each) for each in ("Pending", "Training", "Succeeded")}
    assert counts == {"Pending": 2, "Training": 1, "Succeeded": 0}
    assert value(metrics, "hone_modeldeployments", phase="Available") == 1


def test_the_readme_tells_how_many_resources_have_series_and_for_how_long() -> None:
    text = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    assert resource_metrics.ENDED_SECONDS == 3600 and "series until an hour after its end" in text
    assert f"At most {resource_metrics.MAX_RESOURCES:,} resources of a kind have them" in text


def test_no_namespace_takes_the_series_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_metrics, "MAX_RESOURCES", 8)
    metrics = Metrics(clock=lambda: NOW)
    for number in range(20):
        metrics.resources.observe("FineTuneJob", "greedy", f"job-{number}", {"status": {"phase": "Pending"}})
    metrics.resources.observe("FineTuneJob", "modest", "ended", {"status": ended(10)})
    for name in ("one", "two"):
        metrics.resources.observe("FineTuneJob", "modest", name, {"status": STATUS})
    shown = {
        (each, name)
        for each, names in (("greedy", [f"job-{n}" for n in range(20)]), ("modest", ["one", "two", "ended"]))
        for name in names
        if value(metrics, "hone_finetunejob_phase", namespace=each, name=name, phase="Pending") is not None
    }
    assert {name for each, name in shown if each == "modest"} == {"one", "two", "ended"}
    assert {name for each, name in shown if each == "greedy"} == {f"job-{number}" for number in range(5)}
    assert value(metrics, "hone_finetunejobs", phase="Pending") == 20


def test_series_of_a_controller_exist_before_its_first_reconcile() -> None:
    metrics = filled(STATUS)
    assert value(metrics, "controller_runtime_reconcile_errors_total", controller="finetunejob") == 0
    assert value(metrics, "controller_runtime_reconcile_total", controller="finetunejob", result="requeue_after") == 0
    assert value(metrics, "controller_runtime_max_concurrent_reconciles", controller="finetunejob") == 4
