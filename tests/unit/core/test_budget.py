"""GPU hours and cost: estimated before training, counted while it runs, and bounded by the budget."""

import json
from datetime import timedelta
from typing import Any

import pytest

from hone.api.finetunejob_status import GpuStatus
from hone.contract.objectives import Objective
from hone.contract.plan import DatasetSummary
from hone.contract.progress import Progress
from hone.core.finetunejob.policies.budget import LEAST_SECONDS
from hone.core.finetunejob.policies.estimate import from_progress, from_table
from hone.core.kinds import KINDS
from hone.core.network import NetworkPeers
from hone.core.observed import Node, Pod, ProgressReading
from hone.core.prices import Prices
from hone.core.settings import Settings
from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster
from tests.unit.core.runs import results

HOURLY = Prices("EUR", {"NVIDIA-A100-SXM4-80GB": 2.0, "default": 1.0})
LABELS = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"}
A100 = Node("a", labels=LABELS, allocatable={"nvidia.com/gpu": 8})
TOKENS = 50_000_000
LARGE = {"parameters": 8_000_000_000, "trainable_parameters": 40_000_000}


def prepared(
    budget: dict[str, float] | None, prices: Prices = HOURLY, spec: dict[str, Any] | None = None, **plan: Any
) -> FakeCluster:
    """A job on four A100 whose prepare has just ended."""
    spec = {"compute": {"gpusPerNode": 2, "nodes": 2}, **(spec or {})}
    cluster = finetunejob_cluster(**spec, **({"budget": budget} if budget else {}))
    cluster.settings = Settings(network_policies=NetworkPeers(), prices=prices)
    cluster.nodes = (A100,)
    cluster.converge()
    result = make.prepared(**plan)
    cluster.complete(result.model_copy(update={"dataset": make.dataset(tokens=TOKENS)}))
    cluster.converge()
    return cluster


def trained_for(cluster: FakeCluster, seconds: float) -> None:
    """The running attempt trains for so long, saves a checkpoint and stops by the budget."""
    cluster.start()
    cluster.later(seconds)
    report(cluster, step=90, checkpoint_step=90)
    cluster.converge()
    cluster.progress = None
    cluster.fail(75, make.verdict("Preempted", "stopped by the budget of the job, which is used up, at step 90"))
    ran_for(cluster, seconds)
    cluster.converge()


def ran_for(cluster: FakeCluster, seconds: float) -> None:
    """The containers that have ended just now had begun so long ago."""
    for pod in cluster.pods_of(cluster.job()["metadata"]["name"]):
        (container,) = pod["status"]["containerStatuses"]
        container["state"]["terminated"]["startedAt"] = rfc3339(cluster.now - timedelta(seconds=seconds))


def report(cluster: FakeCluster, **figures: Any) -> None:
    """The trainer pod reports its progress now."""
    pods = tuple(Pod(pod) for pod in cluster.pods.values())
    target = KINDS["FineTuneJob"].progress_target(cluster.resource, pods)
    assert target is not None
    values = {"pod_uid": target.pod_uid, "observed_time": cluster.now.timestamp(), "total_steps": 300, **figures}
    cluster.progress = ProgressReading(target.pod_uid, Progress(**values))


def budget_seconds(cluster: FakeCluster) -> float | None:
    """How long the newest attempt may train."""
    (container,) = cluster.job()["spec"]["template"]["spec"]["containers"]
    (attempt,) = [each["value"] for each in container["env"] if each["name"] == "HONE_ATTEMPT"]
    seconds: float | None = json.loads(attempt).get("budgetSeconds")
    return seconds


def test_without_a_budget_there_is_no_limit() -> None:
    assert budget_seconds(prepared(None)) is None


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [
        ({"gpuHours": 2.0}, 1800),
        ({"cost": 8.0}, 3600),
        ({"gpuHours": 2.0, "cost": 8.0}, 1800),
        ({"gpuHours": 9.0, "cost": 2.0}, 900),
    ],
    ids=["GPU hours", "cost at the product's price", "both: GPU hours are less", "both: the cost is less"],
)
def test_an_attempt_gets_what_the_budget_allows(budget: dict[str, float], seconds: float) -> None:
    assert budget_seconds(prepared(budget)) == pytest.approx(seconds)


def test_gpus_of_the_servers_that_generate_answers_use_the_budget_too() -> None:
    generating = {
        "objective": "GRPO",
        "reward": {"functions": [{"name": "ExactMatch"}]},
        "generation": {"gpusPerNode": 2},
    }
    cluster = prepared({"gpuHours": 2.0}, spec=generating, generation_engine="VLLM")
    assert budget_seconds(cluster) == pytest.approx(900), "eight GPUs, not four"
    trained_for(cluster, 450)
    assert cluster.status["usage"]["gpuSeconds"] == pytest.approx(8 * 450, abs=16)
    assert budget_seconds(cluster) == pytest.approx(450, abs=2)
    cluster.start()
    cluster.later(225)
    report(cluster, step=95, seconds_per_step=3.6)
    cluster.converge()
    assert cluster.status["usage"]["gpuHours"] == 1.5, "what was used while it runs"
    assert cluster.status["estimate"]["gpuHoursHigh"] == pytest.approx(2.4 * 1.2, rel=0.1)


def test_a_used_budget_stops_the_job_with_its_checkpoint_until_it_is_raised() -> None:
    cluster = prepared({"gpuHours": 2.0})
    trained_for(cluster, 1801)
    assert results(cluster)[-1] == ("train", 1, "Failed")
    assert cluster.jobs().count("train-2") == 0, "no attempt begins"
    assert cluster.status["phase"] == "Suspended"
    assert cluster.condition("Stalled") == ("True", "BudgetExhausted")
    assert cluster.condition("Finished")[0] == "False"
    assert cluster.message("Stalled") == (
        "spec.budget.gpuHours is used up: 2 GPU hours of 2 GPU hours; the checkpoint of step 90 of 300 is kept. Raise "
        "it to continue from there."
    )
    cluster.edit(budget={"gpuHours": 3.0}).converge()
    assert results(cluster)[-1] == ("train", 2, "Running")
    assert budget_seconds(cluster) == pytest.approx(900, abs=2), "what is left of the new limit"
    assert cluster.status["usage"]["retries"] == 0


def test_an_attempt_that_was_preempted_early_leaves_its_rest_to_the_next() -> None:
    cluster = prepared({"gpuHours": 2.0})
    trained_for(cluster, 600)
    assert results(cluster)[-1] == ("train", 2, "Running")
    assert budget_seconds(cluster) == pytest.approx(1200, abs=2)


def test_no_attempt_begins_for_less_than_a_minute() -> None:
    cluster = prepared({"gpuHours": 2.0})
    trained_for(cluster, 1800 - LEAST_SECONDS / 2)
    assert cluster.condition("Stalled") == ("True", "BudgetExhausted")


def test_a_budget_for_less_than_a_minute_is_too_small_and_not_used_up() -> None:
    cluster = prepared({"gpuHours": 0.02})
    assert cluster.condition("Stalled") == ("True", "BudgetTooSmall")
    assert "60 seconds of 4 GPUs are needed at least. Raise it." in cluster.message("Stalled")


def test_what_was_trained_is_exported_whatever_the_budget() -> None:
    cluster = prepared({"gpuHours": 2.0})
    cluster.start()
    cluster.later(1900).complete(make.trained())
    ran_for(cluster, 1900)
    cluster.converge()
    assert results(cluster)[-1] == ("finish", 1, "Running")


def test_a_budget_below_the_estimate_is_refused_before_a_gpu_is_used() -> None:
    cluster = prepared({"gpuHours": 0.5}, **LARGE)
    assert cluster.jobs() == ["prepare-1"]
    assert cluster.condition("Stalled") == ("True", "BudgetTooSmall")
    words = cluster.message("Stalled")
    assert words.startswith("spec.budget.gpuHours is 0.5 GPU hours, but training needs about ")
    assert "by a table of GPUs, not a measurement" in words
    assert cluster.status["phase"] == "Pending"
    cluster.edit(budget={"gpuHours": 100.0}).converge()
    assert results(cluster)[-1] == ("train", 1, "Running")


def test_a_cost_without_a_price_is_refused_with_what_to_do() -> None:
    cluster = prepared({"cost": 5.0}, prices=Prices())
    assert cluster.jobs() == ["prepare-1"]
    assert cluster.condition("Stalled") == ("True", "NoPrice")
    assert "NVIDIA-A100-SXM4-80GB. Set gpuHours instead, or have the administrator" in cluster.message("Stalled")


def test_an_edit_of_the_budget_prepares_nothing_again() -> None:
    cluster = finetunejob_cluster(compute={"gpusPerNode": 1}, budget={"gpuHours": 1.0})
    cluster.converge()
    cluster.edit(budget={"gpuHours": 2.0}).converge()
    assert results(cluster) == [("prepare", 1, "Running")]


def test_status_shows_hours_and_cost_before_during_and_after() -> None:
    cluster = prepared(None, **LARGE)
    before = cluster.status
    low, high = before["estimate"]["gpuHoursLow"], before["estimate"]["gpuHoursHigh"]
    assert 0 < low < high
    assert before["cost"] == {
        "currency": "EUR",
        "perGpuHour": 2.0,
        "used": 0.0,
        "estimatedLow": round(2 * low, 2),
        "estimatedHigh": round(2 * high, 2),
    }
    cluster.start()
    cluster.later(900)
    report(cluster, step=30, seconds_per_step=30.0)
    cluster.converge()
    during = cluster.status
    assert during["usage"]["gpuHours"] == 1.0
    assert during["cost"]["used"] == 2.0
    assert during["estimate"] == {
        "gpuHoursLow": 7.3,
        "gpuHoursHigh": 13.0,
        "basis": "the measured speed of this job's optimizer steps",
    }
    cluster.progress = None
    cluster.later(900).complete(make.trained())
    ran_for(cluster, 1800)
    cluster.converge()
    assert cluster.status["usage"]["gpuHours"] == 2.0
    assert cluster.status["cost"]["used"] == 4.0


def test_time_alone_changes_nothing() -> None:
    cluster = prepared(None)
    cluster.start()
    cluster.later(900)
    report(cluster, step=30, seconds_per_step=30.0)
    cluster.converge()
    before = cluster.status
    cluster.later(900).converge()
    assert cluster.status == before


def test_a_pod_cannot_report_hours_of_the_future() -> None:
    cluster = prepared(None)
    cluster.start()
    cluster.later(900)
    report(cluster, step=1, observed_time=1e14, seconds_per_step=-5.0)
    cluster.converge()
    assert cluster.status["usage"]["gpuHours"] == 1.0
    assert cluster.status["estimate"]["basis"].startswith("a table of GPUs")


def test_a_job_on_cpus_has_no_gpu_hours() -> None:
    cluster = finetunejob_cluster(compute={"gpusPerNode": 0})
    cluster.settings = Settings(network_policies=NetworkPeers(), prices=HOURLY)
    cluster.converge()
    cluster.complete(make.prepared())
    cluster.converge()
    assert cluster.status["usage"] == {"gpuSeconds": 0, "retries": 0}
    assert "cost" not in cluster.status
    assert "estimate" not in cluster.status


def test_the_table_knows_what_is_trained_and_says_nothing_of_other_gpus() -> None:
    cluster = prepared(None)
    gpu = GpuStatus.from_dict(cluster.status["gpu"])
    rows: DatasetSummary = make.dataset(tokens=TOKENS)
    adapter, full = make.training_plan(**LARGE), make.training_plan(**{**LARGE, "trainable_parameters": 8_000_000_000})
    small, large = (from_table(Objective.SFT, plan, rows, gpu) for plan in (adapter, full))
    assert small is not None
    assert large is not None
    # 4 operations for each of 8e9 parameters and 3 · 50e6 tokens, at half of 312e12 a second.
    assert small.gpu_hours_low == pytest.approx(4 * 8e9 * 150e6 / (0.5 * 312e12) / 3600, rel=0.05)
    assert large.gpu_hours_low == pytest.approx(1.5 * small.gpu_hours_low, rel=0.1)
    assert from_table(Objective.GRPO, adapter, rows, gpu) is None
    other = gpu.model_copy(update={"product": "AMD-Instinct-MI300X"})
    assert from_table(Objective.SFT, adapter, rows, other) is None
    assert from_table(Objective.SFT, adapter, rows, None) is None


def test_a_measured_estimate_narrows_as_steps_are_done() -> None:
    half = from_progress(Progress(step=50, total_steps=100, seconds_per_step=36.0), 1)
    done = from_progress(Progress(step=100, total_steps=100, seconds_per_step=36.0), 1)
    assert half is not None
    assert done is not None
    assert (half.gpu_hours_low, half.gpu_hours_high) == (0.85, 1.1)
    assert (done.gpu_hours_low, done.gpu_hours_high) == (1.0, 1.0)
    assert from_progress(Progress(step=1, total_steps=100), 1) is None
