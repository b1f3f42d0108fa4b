"""What autograd saves of a model: measured on fake tensors, against real ones."""

from pathlib import Path
from typing import Any

import pytest

from dev.architectures.families import FAMILIES, config_of
from hone.contract.settings import Lora
from hone_trainer.models.activations import measure
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.saved import Growth, Mode, SavedActivations

ROWS, LENGTH = 2, 320


def saved_bytes(config: Any, rank: int | None, *, masked: bool) -> int:
    """Bytes that a forward pass of the layers saves, of real tensors."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if rank:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear")).get_base_model()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, Any] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    rows = ROWS if masked else 1
    mask = torch.ones(rows, LENGTH, dtype=torch.long)
    if masked:
        mask[1, LENGTH // 2 :] = 0
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        ids = torch.zeros(rows, LENGTH, dtype=torch.long)
        model.train().get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in own)


@pytest.mark.train
@pytest.mark.parametrize(
    ("family", "rank", "masked"),
    [
        pytest.param("Llama", None, False, id="Llama, Full, one row"),
        pytest.param("Llama", 8, True, id="Llama, LoRA, padded"),
        pytest.param("Gemma2", None, True, id="Gemma 2, Full, padded"),
        pytest.param("Gemma2", 8, False, id="Gemma 2, LoRA, one row"),
        pytest.param("Mixtral", None, True, id="Mixtral, Full, padded"),
        pytest.param("Mixtral", 8, False, id="Mixtral, LoRA, one row"),
    ],
)
def test_as_much_as_real_tensors_save(family: str, rank: int | None, masked: bool, tmp_path: Path) -> None:
    config = config_of(FAMILIES[family])
    config.save_pretrained(tmp_path)
    lora = Lora(rank=rank) if rank else None
    measured = measure(tmp_path, CHAT, Mode.of(lora, "bfloat16", autocast=False, masked=masked))
    assert measured is not None
    real = saved_bytes(config, rank, masked=masked)
    rows = ROWS if masked else 1
    assert measured.at(rows, LENGTH, checkpointing=False) == pytest.approx(real, rel=0.03)


@pytest.mark.train
def test_attention_that_is_not_fused_saves_all_pairs_of_tokens(tmp_path: Path) -> None:
    config = config_of(FAMILIES["Gemma2"])
    config.save_pretrained(tmp_path)
    measured = measure(tmp_path, CHAT, Mode.of(None, "bfloat16", autocast=False, masked=False))
    assert measured is not None
    assert measured.all_layers.quadratic > 4 * config.num_attention_heads * config.num_hidden_layers


@pytest.mark.train
def test_experts_are_measured_under_autocast_too(tmp_path: Path) -> None:
    config_of(FAMILIES["Mixtral"]).save_pretrained(tmp_path)
    assert measure(tmp_path, CHAT, Mode.of(None, "float32", autocast=True, masked=False)) is not None


@pytest.mark.train
def test_of_a_deep_model_the_first_layers_stand_for_all(tmp_path: Path) -> None:
    of_depth = {}
    for layers in (12, 36):
        config = config_of(FAMILIES["Qwen3"])
        config.num_hidden_layers = layers
        config.layer_types = ["full_attention"] * layers
        config.save_pretrained(tmp_path)
        of_depth[layers] = measure(tmp_path, CHAT, Mode.of(None, "bfloat16", autocast=False, masked=False))
    short, deep = of_depth[12], of_depth[36]
    assert short is not None
    assert deep is not None
    assert deep.all_layers.linear == pytest.approx(3 * short.all_layers.linear, rel=0.05)
    assert deep.between_layers.linear == 3 * short.between_layers.linear
    assert deep.largest_layer == short.largest_layer


def test_what_cannot_be_measured_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert measure(tmp_path, CHAT, Mode.of(None, "bfloat16", autocast=False, masked=False)) is None


def test_checkpointing_keeps_what_layers_are_given_and_one_layer() -> None:
    saved = SavedActivations(Growth(0, 100, 4), Growth(1, 10, 2), Growth(0, 3, 0), Growth(0, 0, 0))
    assert saved.at(2, 10, checkpointing=False) == 2 * (1000 + 400)
    assert saved.at(2, 10, checkpointing=True) == 2 * 30 + 1 + 2 * (100 + 200)
