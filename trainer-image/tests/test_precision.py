"""float16 on GPUs without bfloat16: when the plan chooses it, what it refuses, and how training follows it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_plan import FULL, LARGE, config_with, gang, plan_of, summary_of

from hone.contract.exits import FailureClass
from hone.contract.plan import Plan
from hone.contract.settings import Precision
from hone_trainer.models.zero import _load_as_data, deepspeed_config
from hone_trainer.objectives.inputs import training_arguments
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.memory_fallback import fallback_levels
from hone_trainer.planning.plan import make_plan
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB
from hone_trainer.protocol.verdicts import classify
from hone_trainer.training.callbacks import MOST_SKIPPED, StepHealth
from hone_trainer.training.divergence import MAX_NONFINITE_STEPS, Divergence


def plan(capability: str | None = "7.5", gpus: int = 1, sections: Any = None, **topology: Any) -> Plan:
    """The plan of a large model on GPUs of this compute capability."""
    place = gang(processes=gpus, gpus=gpus, memoryBytes=48 * GIB, computeCapability=capability, **topology)
    return make_plan(PlanInputs(config_with(**(sections or {}), **place), LARGE, summary_of(1000), 512))


@pytest.mark.parametrize(
    ("capability", "requested", "dtype"),
    [
        ("7.5", None, Precision.FLOAT16),
        ("8.0", None, None),
        ("12.0", None, None),
        (None, None, None),
        ("7.5", "bfloat16", None),
        ("8.6", "float16", Precision.FLOAT16),
        (None, "float16", Precision.FLOAT16),
    ],
)
def test_gpus_without_bfloat16_compute_in_float16(
    capability: str | None, requested: str | None, dtype: Precision | None
) -> None:
    chosen = plan(capability, precision=requested)
    assert chosen.compute_dtype is dtype
    assert chosen.precision == chosen.half == (dtype or Precision.BFLOAT16)
    reason = chosen.reasons.get("computeDtype", "")
    if dtype and not requested:
        assert reason.startswith("The GPUs have no bfloat16 (compute capability 7.5, below 8.0). The loss is scaled;")
    assert any("compute it by float32" in text for text in chosen.warnings) == (requested == "bfloat16")


def test_on_cpus_nothing_changes() -> None:
    assert "computeDtype" not in plan_of().to_dict()


def test_gpus_that_are_too_old_are_refused() -> None:
    with pytest.raises(BadInput, match=r"compute capability 7\.0, but CUDA 13 needs 7\.5"):
        plan("7.0")


@pytest.mark.parametrize("topology", [{}, {"precision": "float16"}])
def test_families_beyond_its_range_are_refused_unless_bfloat16_is_requested(
    topology: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LARGE.__dict__, "model_type", "gemma3_text")
    with pytest.raises(BadInput, match="gemma3_text compute values beyond the range of float16"):
        plan(**topology)
    assert plan(precision="bfloat16").compute_dtype is None


@pytest.mark.parametrize("method", ["LoRA", "QLoRA", "Full"])
def test_training_follows_the_plan(method: str) -> None:
    config = config_with(method={"type": method}, **gang(gpus=1, memoryBytes=320 * GIB, computeCapability="7.5"))
    chosen = make_plan(PlanInputs(config, LARGE, summary_of(1000), 512))
    arguments = training_arguments(config, chosen, config.paths.run)  # type: ignore[arg-type]
    assert (arguments["bf16"], arguments["fp16"]) == (False, True)
    assert chosen.precision == ("float32" if method == "Full" else "float16")


def test_under_zero_deepspeed_scales_the_loss() -> None:
    zero = deepspeed_config(plan(gpus=8, sections=FULL, zeroStage=3))
    assert zero is not None
    assert (zero["bf16"]["enabled"], zero["fp16"]["enabled"], zero["fp16"]["loss_scale"]) == (False, True, 0)
    assert zero["zero_optimization"]["overlap_comm"]


def test_levels_of_the_memory_fallback_stay_in_float16() -> None:
    sections = FULL | gang(gpus=2, processes=2, memoryBytes=320 * GIB, computeCapability="7.5")
    config = config_with(**sections)
    levels = fallback_levels(make_plan(PlanInputs(config, LARGE, summary_of(1000), 512)), config.topology)
    sharded = {level.plan.precision for level in levels if level.plan.zero_stage}
    assert levels[0].plan.precision == "float32" and sharded == {"float16"}


def steps(health: StepHealth, norms: list[float], loss: float = 1.0) -> Divergence:
    """The rule after steps with these norms of gradients."""
    rule = Divergence()
    for norm in norms:
        health.add_loss(torch.tensor(loss))
        health.add_norm(norm)
        taken, finite = health.take()
        rule.take(taken, finite=finite)
    return rule


def test_steps_that_are_skipped_are_no_divergence_but_endless_ones_are() -> None:
    overflowing = [math.inf] * MOST_SKIPPED
    assert steps(StepHealth(scales_loss=True), overflowing).verdict is None
    assert steps(StepHealth(scales_loss=True), [*overflowing, 1.0, *overflowing]).verdict is None
    assert steps(StepHealth(scales_loss=True), overflowing + [math.nan] * MAX_NONFINITE_STEPS).verdict
    assert steps(StepHealth(), [math.inf] * MAX_NONFINITE_STEPS).verdict, "in bfloat16 nothing is scaled"
    lost = steps(StepHealth(scales_loss=True), [math.inf] * MAX_NONFINITE_STEPS, loss=math.nan)
    assert lost.verdict, "the loss is not scaled where it is reported"


def scaler(scale: int) -> Any:
    """What scales DeepSpeed's loss in float16."""
    from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler

    arguments = {"init_scale": scale, "scale_window": 1000, "min_scale": 1, "delayed_shift": 1}
    arguments["consecutive_hysteresis"] = False
    return CreateLossScaler(torch.half, static_loss_scale=0, dynamic_scaling=True, dynamic_loss_args=arguments)


def test_deepspeeds_smallest_scale_counts_as_divergence() -> None:
    with pytest.raises(Exception, match="minimum") as error:
        scaler(1).update_scale(True)
    assert classify(error.value) is FailureClass.DIVERGED


def test_the_scale_is_loaded_from_deepspeeds_checkpoints(tmp_path: Path) -> None:
    torch.save({"loss_scaler": scaler(512)}, tmp_path / "states.pt")
    assert _load_as_data(None, str(tmp_path / "states.pt"))["loss_scaler"].loss_scale == 512
