"""The memory estimate against its formulas, and the model's numbers against the libraries that will load it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone.contract.methods import MethodType
from hone.contract.settings import Lora
from hone_trainer.models.adapters import Adapted
from hone_trainer.models.facts import ModelFacts, read_model
from hone_trainer.models.zero import BUCKET_PARAMETERS, LIVE_PARAMETERS
from hone_trainer.planning.memory import checkpoint_bytes, estimate_memory, states_bytes
from hone_trainer.planning.memory_terms import TrainingStep
from hone_trainer.protocol.errors import BadInput

P = 1_000_000
FACTS = ModelFacts(
    directory=Path("/x"),
    model_type="llama",
    hidden_size=100,
    layers=4,
    intermediate_size=300,
    vocab_size=1000,
    max_length=512,
    shapes={"w": (1000, 1000)},
)


NO_DROPOUT = Lora(rank=8, dropout=0.0)


def estimate(lora: Lora | None = None, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "model": FACTS,
        "trainable": P,
        "weight_bytes": 2,
        "on_gpu": True,
        "world_size": 1,
        "zero_stage": 0,
        "micro_batch_size": 1,
        "accumulates": False,
        "sequence_length": 10,
        "gradient_checkpointing": False,
        "limit_bytes": None,
    }
    return estimate_memory(TrainingStep(lora=lora, **(settings | changes)))


@pytest.mark.parametrize(
    ("lora", "changes", "per_parameter"),
    [
        pytest.param(None, {"weight_bytes": 4}, 16, id="Full with DDP: 16"),
        pytest.param(None, {"world_size": 4, "zero_stage": 0}, 16, id="DDP shares nothing: 16"),
        pytest.param(None, {"accumulates": True}, 16, id="one process with several micro-batches: 16"),
        pytest.param(None, {"accumulates": True, "world_size": 2}, 20, id="two with several micro-batches: 4 more"),
        pytest.param(None, {"world_size": 2, "zero_stage": 2}, 2 + 14 / 2 + 6, id="ZeRO-2: 2 + 14/N, three buckets"),
        pytest.param(None, {"world_size": 8, "zero_stage": 2}, 2 + 14 / 8 + 6, id="on eight: 2 + 14/8, three buckets"),
        pytest.param(
            None,
            {"world_size": 2, "zero_stage": 2, "weight_bytes": 4, "on_gpu": False},
            4 + 16 / 2 + 8,
            id="ZeRO-2 in fp32: 4 + 16/N, two buckets",
        ),
        pytest.param(None, {"world_size": 8, "zero_stage": 3}, 16 / 8 + 10, id="ZeRO-3: 16/N, buckets, live weights"),
        pytest.param(NO_DROPOUT, {"trainable": 0}, 2, id="LoRA's base: 2"),
        pytest.param(
            NO_DROPOUT, {"trainable": 0, "world_size": 4, "zero_stage": 3}, 2 / 4 + 4, id="LoRA's base with ZeRO-3: 2/N"
        ),
        pytest.param(NO_DROPOUT, {"trainable": P // 10}, 2 + 1.6, id="LoRA's adapter: 16 of its own"),
        pytest.param(NO_DROPOUT, {"trainable": 0, "weight_bytes": 4, "on_gpu": False}, 4, id="on the CPU: 4"),
    ],
)
def test_bytes_per_parameter(lora: Lora | None, changes: dict[str, Any], per_parameter: float) -> None:
    assert states_bytes(estimate(lora, **changes)) == pytest.approx(per_parameter * P)


@pytest.mark.parametrize(("on_gpu", "stage", "per_parameter"), [(True, 0, 2), (True, 3, 0.5), (False, 0, 4)])
def test_a_teacher_takes_its_weights_and_a_tile_of_logits_of_either_model(
    on_gpu: bool, stage: int, per_parameter: float
) -> None:
    place = {"on_gpu": on_gpu, "zero_stage": stage, "world_size": 4}
    alone, taught = estimate(**place), estimate(**place, teacher_parameters=100 * P)
    assert taught.weights_bytes - alone.weights_bytes == per_parameter * 100 * P
    # Ten tokens by 32768 words in fp32, though the vocabulary has a thousand.
    assert taught.activations_bytes - alone.activations_bytes > 2 * 10 * 32768 * 4 * 0.9


@pytest.mark.parametrize("weight_bytes", [2, 4])
def test_a_quantized_base_takes_little_more_than_four_bits_but_for_embeddings_and_head(weight_bytes: int) -> None:
    shapes = {
        "model.embed_tokens.weight": (1000, 100),
        "layers.0.mlp.up_proj.weight": (3000, 100),
        "layers.0.mlp.down_proj.weight": (100, 3000),
        "layers.0.self_attn.q_proj.weight": (100, 100),
        "layers.0.input_layernorm.weight": (100,),
        "lm_head.weight": (1000, 100),
    }
    estimated = estimate_memory(
        TrainingStep(
            replace(FACTS, shapes=shapes, quantized={n: s for n, s in shapes.items() if "_proj" in n}),
            NO_DROPOUT,
            trainable=0,
            weight_bytes=weight_bytes,
            quantized=True,
            on_gpu=True,
            world_size=4,
            zero_stage=0,
            micro_batch_size=1,
            accumulates=False,
            sequence_length=10,
            gradient_checkpointing=False,
            limit_bytes=None,
        )
    )
    whole = 200_100 + 300_000  # embeddings, head and norm, and one layer while it is multiplied with
    assert estimated.weights_bytes == pytest.approx(610_000 * (4 + 0.127) / 8 + weight_bytes * whole, rel=1e-4)


@pytest.mark.parametrize(("stage", "per_parameter"), [(2, 2 + 14 / 2), (3, 16 / 2)])
def test_buffers_of_zero_do_not_grow_with_the_model(stage: int, per_parameter: float) -> None:
    large = replace(FACTS, shapes={"w": (50_000, 50_000)})
    estimated = estimate_memory(
        TrainingStep(
            large,
            None,
            trainable=large.parameters,
            weight_bytes=2,
            on_gpu=True,
            world_size=2,
            zero_stage=stage,
            micro_batch_size=1,
            accumulates=True,
            sequence_length=10,
            gradient_checkpointing=False,
            limit_bytes=None,
        )
    )
    buffers = states_bytes(estimated) - per_parameter * large.parameters
    assert buffers == 2 * (3 * BUCKET_PARAMETERS + (LIVE_PARAMETERS + BUCKET_PARAMETERS if stage == 3 else 0))


@pytest.mark.parametrize(
    ("changes", "saved_values"),
    [
        pytest.param({}, 17 * 100 + 4 * 300, id="autocast"),
        pytest.param({"zero_stage": 2}, 12 * 100 + 4 * 300, id="bf16 throughout"),
    ],
)
def test_activations_of_all_layers_or_of_one(changes: dict[str, Any], saved_values: int) -> None:
    tokens, at_work, residual = 30, (8 * 100 + 4 * 300) * 2, 100 * 2 * (1 if changes else 2)
    without = estimate(micro_batch_size=3, **changes)
    with_checkpointing = estimate(micro_batch_size=3, gradient_checkpointing=True, **changes)
    head = tokens * 1000 * 2 + 4 * 100 * (tokens + 1000)
    most = max(tokens * at_work, head)
    assert without.activations_bytes == 4 * tokens * saved_values * 2 + most
    assert with_checkpointing.activations_bytes == 4 * tokens * residual + tokens * saved_values * 2 + most


@pytest.mark.parametrize(("whole", "more"), [(False, 0), (True, 8 * 4096 * (262_144 - 32_768) * 9)])
def test_the_loss_takes_a_tile_of_the_logits_unless_it_holds_them_all(whole: bool, more: int) -> None:
    small, large = (
        estimate_memory(
            TrainingStep(
                replace(FACTS, vocab_size=vocabulary),
                NO_DROPOUT,
                trainable=0,
                weight_bytes=2,
                on_gpu=True,
                world_size=1,
                zero_stage=0,
                micro_batch_size=8,
                accumulates=False,
                sequence_length=4096,
                gradient_checkpointing=True,
                limit_bytes=None,
                materializes_logits=whole,
            )
        ).activations_bytes
        for vocabulary in (32_768, 262_144)
    )
    assert large - small == more


def test_the_total_is_the_sum_of_the_parts() -> None:
    memory = estimate(limit_bytes=5)
    parts = memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes + memory.activations_bytes
    assert memory.total_bytes == parts + memory.overhead_bytes
    assert memory.overhead_bytes == int(parts * 0.1) + 2 * 1024**3
    assert memory.limit_bytes == 5


@pytest.mark.parametrize(("stage", "whole"), [(0, 0), (3, 2 * 4 * P)])
def test_on_cpus_a_part_of_what_steps_free_stays_in_holes(stage: int, whole: int) -> None:
    memory = estimate(weight_bytes=4, on_gpu=False, world_size=2, zero_stage=stage)
    parts = memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes + memory.activations_bytes
    holes = (whole + memory.gradients_bytes + memory.activations_bytes) * 0.35
    assert memory.overhead_bytes == pytest.approx(holes + 0.1 * (parts + holes) + 1024**3, abs=2)
    assert memory.total_bytes == parts + memory.overhead_bytes


def test_a_checkpoint_holds_what_is_trained_and_its_moments() -> None:
    full = {"trainable": P, "weight_bytes": 4}
    assert checkpoint_bytes(FACTS, MethodType.FULL, zero_stage=0, **full) == 12 * P
    assert checkpoint_bytes(FACTS, MethodType.FULL, zero_stage=2, trainable=P, weight_bytes=2) == 14 * P
    assert checkpoint_bytes(FACTS, MethodType.FULL, zero_stage=3, trainable=P, weight_bytes=2) == 12 * P
    assert checkpoint_bytes(FACTS, MethodType.FULL, zero_stage=3, trainable=P - 10, weight_bytes=2) == 12 * P - 100
    assert checkpoint_bytes(FACTS, MethodType.LORA, zero_stage=3, trainable=1000, weight_bytes=2) == 12_000
    assert checkpoint_bytes(FACTS, MethodType.QLORA, zero_stage=2, trainable=1000, weight_bytes=2) == 16_000
    assert checkpoint_bytes(FACTS, MethodType.LORA, zero_stage=0, trainable=1000, weight_bytes=2) == 12_000


def test_parameters_are_those_that_transformers_loads(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    facts = read_model(str(tiny_model))
    assert facts.parameters == AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()
    assert (facts.hidden_size, facts.layers, facts.intermediate_size, facts.max_length) == (32, 2, 64, 256)


def test_adapters_on_experts_need_a_copy_of_what_they_change() -> None:
    on_experts = replace(FACTS, adapted=(Adapted("model.layers.0.mlp.experts", 100, 300, 8, 4 * P),))
    for checkpointing, copies in ((False, 4 + 1), (True, 1 + 1)):
        dense, experts = (
            estimate(NO_DROPOUT, model=model, gradient_checkpointing=checkpointing).activations_bytes
            for model in (FACTS, on_experts)
        )
        assert experts - dense == 4 * P * copies * 2 // 4, checkpointing


def test_a_head_with_other_outputs_is_refused_before_its_weights_are_loaded() -> None:
    for_three = FACTS.with_head(3)
    assert for_three.shapes["score.weight"] == (3, 100)
    assert for_three.with_head(3) == for_three
    with pytest.raises(BadInput, match=r"spec\.model: its head has 3 outputs, but this job needs 2") as refused:
        for_three.with_head(2)
    assert refused.value.hint == "Use the base model that it was trained from."
