"""The memory estimate against its formulas, and the model's numbers against the libraries that will load it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone.contract.settings import Lora, MethodType
from hone_trainer.memory import checkpoint_bytes, estimate_memory, states_bytes
from hone_trainer.models import ModelFacts, read_model

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
    digest="sha256:0",
)


def estimate(method: MethodType = MethodType.FULL, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "trainable": P,
        "weight_bytes": 2,
        "on_gpu": True,
        "world_size": 1,
        "zero_stage": 0,
        "micro_batch_size": 1,
        "sequence_length": 10,
        "gradient_checkpointing": False,
        "limit_bytes": None,
    }
    return estimate_memory(FACTS, method, **(settings | changes))


@pytest.mark.parametrize(
    ("method", "changes", "per_parameter"),
    [
        pytest.param(MethodType.FULL, {"weight_bytes": 4}, 16, id="Full with DDP: 16"),
        pytest.param(MethodType.FULL, {"world_size": 4, "zero_stage": 0}, 16, id="DDP shares nothing: 16"),
        pytest.param(MethodType.FULL, {"world_size": 2, "zero_stage": 2}, 2 + 14 / 2, id="Full with ZeRO-2: 2 + 14/N"),
        pytest.param(MethodType.FULL, {"world_size": 8, "zero_stage": 2}, 2 + 14 / 8, id="on eight: 2 + 14/8"),
        pytest.param(
            MethodType.FULL,
            {"world_size": 2, "zero_stage": 2, "weight_bytes": 4, "on_gpu": False},
            4 + 16 / 2,
            id="ZeRO-2 in fp32: 4 + 16/N",
        ),
        pytest.param(MethodType.FULL, {"world_size": 4, "zero_stage": 3}, 16 / 4, id="Full with ZeRO-3: 16/N"),
        pytest.param(MethodType.LORA, {"trainable": 0}, 2, id="LoRA's base: 2"),
        pytest.param(
            MethodType.LORA, {"trainable": 0, "world_size": 4, "zero_stage": 3}, 2 / 4, id="LoRA's base, ZeRO-3: 2/N"
        ),
        pytest.param(MethodType.LORA, {"trainable": P // 10}, 2 + 1.6, id="LoRA's adapter: 16 of its own"),
        pytest.param(MethodType.LORA, {"trainable": 0, "weight_bytes": 4, "on_gpu": False}, 4, id="on the CPU: 4"),
    ],
)
def test_bytes_per_parameter(method: MethodType, changes: dict[str, Any], per_parameter: float) -> None:
    assert states_bytes(estimate(method, **changes)) == pytest.approx(per_parameter * P)


def test_activations_of_all_layers_or_of_one() -> None:
    tokens, layer = 3 * 10, (17 * 100 + 4 * 300) * 2
    logits = tokens * 1000 * (2 + 8)
    without = estimate(micro_batch_size=3)
    assert without.activations_bytes == 4 * tokens * layer + logits
    with_checkpointing = estimate(micro_batch_size=3, gradient_checkpointing=True)
    assert with_checkpointing.activations_bytes == 4 * tokens * 100 * 2 + tokens * layer + logits


def test_the_total_is_the_sum_of_the_parts() -> None:
    memory = estimate(limit_bytes=5)
    parts = memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes + memory.activations_bytes
    assert memory.total_bytes == parts + memory.overhead_bytes
    assert memory.overhead_bytes == int(parts * 0.1) + 2 * 1024**3
    assert memory.limit_bytes == 5


def test_a_checkpoint_holds_what_is_trained_and_its_moments() -> None:
    full = {"trainable": P, "weight_bytes": 4}
    assert checkpoint_bytes(FACTS, MethodType.FULL, zero_stage=0, **full) == 12 * P
    assert checkpoint_bytes(FACTS, MethodType.FULL, zero_stage=2, trainable=P, weight_bytes=2) == 16 * P
    assert checkpoint_bytes(FACTS, MethodType.FULL, zero_stage=3, trainable=P, weight_bytes=2) == 14 * P
    assert checkpoint_bytes(FACTS, MethodType.LORA, zero_stage=3, trainable=1000, weight_bytes=2) == 16_000
    assert checkpoint_bytes(FACTS, MethodType.LORA, zero_stage=0, trainable=1000, weight_bytes=2) == 12_000


def test_parameters_are_those_that_transformers_loads(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    facts = read_model(str(tiny_model))
    assert facts.parameters == AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()
    assert (facts.hidden_size, facts.layers, facts.intermediate_size, facts.max_length) == (32, 2, 64, 256)


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"], ["down_proj"]])
def test_lora_parameters_are_those_that_peft_trains(tiny_model: Path, targets: list[str] | None) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    facts = read_model(str(tiny_model))
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(r=8, target_modules=targets or "all-linear", task_type="CAUSAL_LM"),
    )
    trained = adapted.get_nb_trainable_parameters()[0]
    assert facts.lora_parameters(Lora(rank=8, target_modules=targets)) == trained


def test_a_separate_output_head_counts_but_is_not_adapted() -> None:
    layer = {"model.layers.0.self_attn.q_proj.weight": (100, 100)}
    tied = replace(FACTS, shapes=layer | {"model.embed_tokens.weight": (1000, 100)})
    untied = replace(tied, shapes={**tied.shapes, "lm_head.weight": (1000, 100)})
    assert untied.parameters == tied.parameters + 100_000
    assert untied.lora_parameters(Lora(rank=4)) == tied.lora_parameters(Lora(rank=4)) == 4 * 200


def test_weights_that_are_pickles_are_counted_without_loading_them(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read as a pickle")
    assert read_model(str(tmp_path)).parameters == read_model(str(tiny_model)).parameters
