"""The metrics' names and text, the gauges per resource, and their end."""

from typing import Any

import pytest

from hone.runtime.metrics import Metrics

STATUS = {
    "phase": "Training",
    "progress": {"step": 25, "totalSteps": 50, "loss": "1.5000", "reward": "0.75", "tokensPerSecond": 900.5},
    "usage": {"retries": 2, "gpuSeconds": 40},
}


def filled(status: dict[str, Any]) -> Metrics:
    """Metrics after a look at a FineTuneJob `ns/sft`."""
    metrics = Metrics()
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


def test_series_of_a_controller_exist_before_its_first_reconcile() -> None:
    metrics = filled(STATUS)
    assert value(metrics, "controller_runtime_reconcile_errors_total", controller="finetunejob") == 0
    assert value(metrics, "controller_runtime_reconcile_total", controller="finetunejob", result="requeue_after") == 0
    assert value(metrics, "controller_runtime_max_concurrent_reconciles", controller="finetunejob") == 4
