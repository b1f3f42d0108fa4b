"""The plan of large models on GPUs: memory that is unknown, rates by size, and gradients that are summed."""

import re
from dataclasses import replace
from typing import Any

import pytest
from test_plan import FACTS, FULL, LARGE, LARGE_SHAPES, config_with, gang, large_plan, plan_of, summary_of

from hone.contract.methods import MethodType
from hone.contract.plan import Plan
from hone.contract.settings import Optimizer
from hone_trainer.models.adapters import Adapted
from hone_trainer.models.facts import ModelFacts
from hone_trainer.models.zero import deepspeed_config
from hone_trainer.planning.choices.states import MOST_HOST_MEMORY
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
    two = gang(processes=2, gpus=2, hostMemoryBytes=64 * GIB)
    plan = make_plan(PlanInputs(config_with(**FULL, **two), LARGE, summary_of(1000), 2048))
    (warning,) = [text for text in plan.warnings if "gpuMemory" in text]
    assert "though it needs about" in warning


def test_whose_memory_counts_is_shown_where_labels_of_nodes_say_it() -> None:
    labels = {"gpuByLabels": "NVIDIA-A10G, by the labels of 3 nodes", "memoryBytes": 24 * GIB}
    qlora = {"method": {"type": "QLoRA"}}
    plan = make_plan(PlanInputs(config_with(**qlora, **gang(gpus=1, **labels)), LARGE, summary_of(1000), 512))
    assert plan.memory.limit_bytes == 24 * GIB
    assert plan.reasons["memory"] == "Each GPU has 24.0 GiB: NVIDIA-A10G, by the labels of 3 nodes."
    assert "memory" not in large_plan(1, 24, **qlora).reasons, "the spec says it"


def test_what_the_smallest_gpu_cannot_hold_is_refused_unless_there_are_larger_ones() -> None:
    labels = {"gpuByLabels": "NVIDIA-A10G, by the labels of 3 nodes", "memoryBytes": 24 * GIB}
    with pytest.raises(BadInput, match=r"but has 24.0 GiB, on NVIDIA-A10G, by the labels of 3 nodes \("):
        make_plan(PlanInputs(config_with(**gang(gpus=1, **labels)), LARGE, summary_of(1000), 512))
    larger = gang(gpus=1, **labels, largestMemoryBytes=80 * GIB)
    plan = make_plan(PlanInputs(config_with(**larger), LARGE, summary_of(1000), 512))
    (warning,) = [text for text in plan.warnings if "may run out of memory" in text]
    assert "Use spec.compute.pod.nodeSelector for nodes with GPUs of 80.0 GiB, " in warning


def test_what_no_gpu_holds_is_refused_though_its_memory_is_unknown() -> None:
    shapes = {f"{name}.{part}": shape for name, shape in LARGE_SHAPES.items() for part in range(3)}
    huge = replace(LARGE, shapes=shapes)
    with pytest.raises(BadInput, match="the largest GPU has 288") as error:
        make_plan(PlanInputs(config_with(**FULL, **gang(gpus=1)), huge, summary_of(1000), 512))
    assert "spec.method.type LoRA" in (error.value.hint or "")


@pytest.mark.parametrize("method", [FULL, {}], ids=["Full", "LoRA"])
@pytest.mark.parametrize("has_experts", [False, True])
def test_a_model_that_is_too_large_gets_no_advice_that_is_refused(method: dict[str, Any], has_experts: bool) -> None:
    experts = {"layers.0.mlp.experts.gate_up_proj": (64, 2 * 14_336, 4096)} if has_experts else {}
    large = llama("70B")
    model = replace(large, shapes={**large.shapes, **experts}, experts=experts)
    config = config_with(**method, **gang(gpus=1, memoryBytes=24 * GIB))
    with pytest.raises(BadInput, match="is too large") as error:
        make_plan(PlanInputs(config, model, summary_of(1000), 512))
    advised = [name for name in MethodType if re.search(rf"\b{name.value}\b", error.value.hint or "")]
    assert (MethodType.QLORA in advised) is not has_experts
    for name in advised:
        tried = config_with(method={"type": name.value}, **gang(gpus=1, memoryBytes=288 * GIB))
        assert make_plan(PlanInputs(tried, model, summary_of(1000), 512)).method == name.value


def test_the_rate_of_full_falls_with_the_size() -> None:
    assert plan_of(**FULL).learning_rate == 2e-5
    large = large_plan(8, 141, **FULL)
    assert large.learning_rate == 7e-6
    assert "square root" in large.reasons["learningRate"]
    assert large_plan(8, 80).learning_rate == plan_of().learning_rate, "an adapter's does not"
    assert large_plan(8, 141, **FULL, hyperparameters={"learningRate": 1e-4}).learning_rate == 1e-4


def test_the_rate_of_adapters_rises_for_narrow_models() -> None:
    def rate(hidden: int, **spec: Any) -> float | None:
        model = replace(FACTS, hidden_size=hidden)
        return make_plan(PlanInputs(config_with(**spec), model, summary_of(1000), 512)).learning_rate

    assert [rate(hidden) for hidden in (8192, 2048, 576, 32)] == [2e-4, 2e-4, 5e-4, 2e-3]
    assert rate(576, **FULL) == 2e-5, "that of all weights does not"
    assert rate(576, hyperparameters={"learningRate": 1e-4}) == 1e-4


def llama(size: str) -> ModelFacts:
    """A Llama 3 of 8 or 70 billion parameters."""
    width, middle, layers = {"8B": (4096, 14_336, 32), "70B": (8192, 28_672, 80)}[size]
    shapes: dict[str, tuple[int, ...]] = {f"{part}.weight": (128_256, width) for part in ("embed_tokens", "lm_head")}
    for n in range(layers):
        shapes |= {f"layers.{n}.self_attn.{p}_proj.weight": (width, width) for p in "qo"}
        shapes |= {f"layers.{n}.self_attn.{p}_proj.weight": (1024, width) for p in "kv"}
        shapes |= {f"layers.{n}.mlp.{p}_proj.weight": (middle, width) for p in ("gate", "up")}
        shapes |= {f"layers.{n}.mlp.down_proj.weight": (width, middle)}
    linear = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if "proj" in name}
    return replace(
        LARGE,
        hidden_size=width,
        intermediate_size=middle,
        layers=layers,
        vocab_size=128_256,
        shapes=shapes,
        quantized=linear,
        adapted=tuple(Adapted(name, inputs, outputs) for name, (outputs, inputs) in linear.items()),
    )


def llama_plan(size: str, gpus: int, memory: int, length: int = 2048, host: int | None = None, **sections: Any) -> Plan:
    limits = {"hostMemoryBytes": host * GIB} if host else {}
    topology = {"memoryBytes": memory * GIB, **limits, **sections.pop("topology", {})}
    config = config_with(**sections, **gang(processes=gpus, gpus=gpus, **topology))
    return make_plan(PlanInputs(config, llama(size), summary_of(1000), length))


def states_of(plan: Plan) -> tuple[object, ...]:
    """Where the plan holds the training state."""
    return plan.zero_stage, plan.optim, plan.offload_optimizer, plan.offload_param


PLAIN = (0, None, None, None)
IN_8_BITS = (0, Optimizer.ADAMW_8BIT, None, None)
PAGED = (0, Optimizer.PAGED_ADAMW_8BIT, None, None)
OFFLOADED = (3, None, True, None)
ALL_OFFLOADED = (3, None, True, True)


@pytest.mark.parametrize(
    ("size", "gpus", "memory", "sections", "expected"),
    [
        pytest.param("8B", 1, 180, FULL, PLAIN, id="8B Full, one of 180 GB"),
        pytest.param("8B", 1, 96, FULL, IN_8_BITS, id="8B Full, one of 96 GB"),
        pytest.param("8B", 1, 80, FULL, PAGED, id="8B Full, one of 80 GB"),
        pytest.param("8B", 1, 48, FULL, OFFLOADED, id="8B Full, one of 48 GB"),
        pytest.param("8B", 1, 24, FULL, ALL_OFFLOADED, id="8B Full, one of 24 GB"),
        pytest.param("8B", 2, 80, FULL, (3, None, None, None), id="8B Full, two of 80 GB share"),
        pytest.param("8B", 2, 48, FULL, OFFLOADED, id="8B Full, two of 48 GB"),
        pytest.param("70B", 8, 80, FULL, OFFLOADED, id="70B Full, eight of 80 GB"),
        pytest.param("8B", 1, 24, {}, PLAIN, id="an adapter is not offloaded by itself"),
        pytest.param("8B", 1, 80, FULL | {"topology": {"offloadOptimizer": True}}, OFFLOADED, id="on request"),
        pytest.param(
            "8B",
            1,
            180,
            FULL | {"topology": {"offloadOptimizer": True, "zeroStage": 2}},
            (2, *OFFLOADED[1:]),
            id="in 2",
        ),
        pytest.param("8B", 1, 24, {"topology": {"offloadParam": True}}, (3, None, None, True), id="LoRA on request"),
        pytest.param(
            "8B", 4, 180, FULL | {"hyperparameters": {"optim": "adamw_bnb_8bit"}}, IN_8_BITS, id="8 bits on request"
        ),
    ],
)
def test_where_the_training_state_is_held(
    size: str, gpus: int, memory: int, sections: dict[str, Any], expected: tuple[object, ...]
) -> None:
    plan = llama_plan(size, gpus, memory, **sections)
    assert states_of(plan) == expected
    assert plan.memory.total_bytes <= memory * GIB
    assert bool(plan.host_memory_bytes) == (any(expected[2:]) or expected == PAGED)
    names = {"optim": expected[1], "offloadOptimizer": expected[2], "offloadParam": expected[3]}
    assert {name for name, value in names.items() if value} == names.keys() & plan.reasons.keys()
    assert any("host memory" in text for text in plan.warnings) == bool(plan.host_memory_bytes)


def test_the_need_of_host_memory_is_told_and_refused_where_the_pod_has_less() -> None:
    plan = llama_plan("8B", 1, 48, **FULL)
    # 4 for the weights, 8 for the moments, 4 for the gradients, and 4 for those that arrive in float32.
    assert plan.gradient_accumulation_steps >= 8
    assert plan.host_memory_bytes == pytest.approx(20 * plan.parameters + 16 * GIB, rel=1e-3)
    need = -(-(plan.host_memory_bytes or 0) // GIB)
    (warning,) = [text for text in plan.warnings if "host memory" in text]
    assert "Training is slow: each step moves 29.9 GiB" in warning
    assert states_of(llama_plan("8B", 1, 48, host=need, **FULL)) == OFFLOADED
    # Larger micro-batches are fewer, whose gradients may be summed in bfloat16: 18 bytes for each parameter.
    least = int(18 * plan.parameters / GIB) + 16
    assert states_of(llama_plan("8B", 1, 48, host=least + 1, **FULL)) == OFFLOADED
    with pytest.raises(BadInput, match="too large") as error:
        llama_plan("8B", 1, 48, host=least, **FULL)
    assert "spec.compute.resources.limits.memory of 165.6 GiB" in (error.value.hint or "")
    with pytest.raises(BadInput, match=r"each trainer pod needs about 1.* GiB of host memory") as error:
        llama_plan("8B", 1, 48, host=least, topology={"offloadOptimizer": True}, **FULL)
    assert error.value.field == "spec.compute.resources.limits.memory"


def test_more_host_memory_than_nodes_have_is_taken_only_on_request() -> None:
    one = gang(gpus=1, memoryBytes=80 * GIB)
    with pytest.raises(BadInput, match="too large"):
        make_plan(PlanInputs(config_with(**FULL, **one), LARGE, summary_of(1000), 2048))
    one["topology"]["offloadOptimizer"] = True
    plan = make_plan(PlanInputs(config_with(**FULL, **one), LARGE, summary_of(1000), 2048))
    assert states_of(plan) == OFFLOADED
    assert (plan.host_memory_bytes or 0) > MOST_HOST_MEMORY


@pytest.mark.parametrize(("rows", "wide"), [(8, False), (8 * 64, True)])
def test_many_micro_batches_are_summed_in_float32_under_zero(rows: int, wide: bool) -> None:
    plan = large_plan(8, 80, 8192, **FULL, hyperparameters={"globalBatchSize": rows})
    assert plan.zero_stage
    config = deepspeed_config(plan) or {}
    assert (config.get("data_types") == {"grad_accum_dtype": "fp32"}) == wide
    assert config["zero_optimization"]["overlap_comm"]
    per_parameter = 4 if wide else 2
    assert plan.memory.gradients_bytes == pytest.approx(per_parameter * LARGE.parameters / 8, rel=0.1)
