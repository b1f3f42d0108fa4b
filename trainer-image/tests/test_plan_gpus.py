"""The plan of large models on GPUs: memory that is unknown, rates by size, and gradients that are summed."""

from dataclasses import replace

import pytest
from test_plan import FULL, LARGE, LARGE_SHAPES, config_with, gang, large_plan, plan_of, summary_of

from hone_trainer.models.zero import deepspeed_config
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.plan import make_plan
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB


def test_gpus_of_unknown_memory_are_planned_as_the_usual_ones() -> None:
    plan = large_plan(8, **FULL)
    assert plan.zero_stage >= 2
    assert plan.memory.total_bytes <= 80 * GIB
    assert plan.memory.limit_bytes is None
    (warning,) = [text for text in plan.warnings if "gpuMemory" in text]
    assert "planned for GPUs of 80.0 GiB:" in warning
    (warning,) = [text for text in large_plan(2, **FULL).warnings if "gpuMemory" in text]
    assert "though it needs about" in warning


def test_what_no_gpu_holds_is_refused_though_its_memory_is_unknown() -> None:
    shapes = {f"{name}.{part}": shape for name, shape in LARGE_SHAPES.items() for part in range(3)}
    huge = replace(LARGE, shapes=shapes)
    with pytest.raises(BadInput, match="the largest GPU has 288") as error:
        make_plan(PlanInputs(config_with(**FULL, **gang(gpus=1)), huge, summary_of(1000), 512))
    assert "spec.method.type LoRA" in (error.value.hint or "")


def test_the_rate_of_full_falls_with_the_size() -> None:
    assert plan_of(**FULL).learning_rate == 2e-5
    large = large_plan(8, 141, **FULL)
    assert large.learning_rate == 7e-6
    assert "square root" in large.reasons["learningRate"]
    assert large_plan(8, 80).learning_rate == plan_of().learning_rate, "an adapter's does not"
    assert large_plan(8, 141, **FULL, hyperparameters={"learningRate": 1e-4}).learning_rate == 1e-4


@pytest.mark.parametrize(("rows", "wide"), [(8, False), (8 * 64, True)])
def test_many_micro_batches_are_summed_in_float32_under_zero(rows: int, wide: bool) -> None:
    plan = large_plan(8, 80, 8192, **FULL, hyperparameters={"globalBatchSize": rows})
    assert plan.zero_stage
    config = deepspeed_config(plan) or {}
    assert (config.get("data_types") == {"grad_accum_dtype": "fp32"}) == wide
    assert config["zero_optimization"]["overlap_comm"]
    per_parameter = 4 if wide else 2
    assert plan.memory.gradients_bytes == pytest.approx(per_parameter * LARGE.parameters / 8, rel=0.1)
