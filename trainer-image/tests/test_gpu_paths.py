"""Code that only runs on GPUs: attention of packed rows, gangs by NCCL, divided models, kernels of packages.

`make gpu` runs these, next to test_gpu.py; what a machine lacks is skipped with its name.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from launchers import START_SECONDS, Launcher, newest_step
from transformers import AutoModelForCausalLM, LlamaConfig

from dev.architectures.families import make
from hone.contract.methods import MethodType
from hone_trainer.methods import METHODS
from hone_trainer.models.inference import division, for_inference
from hone_trainer.models.loading import build_model, load_model
from hone_trainer.objectives import components
from hone_trainer.protocol.planfile import load_plan

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

PACKAGES = {"flash_attention_2": "flash_attn"}
"""What has the kernels of an attention that torch does not have."""


def needs_gpus(count: int) -> None:
    if torch.cuda.device_count() < count:
        pytest.skip(f"needs {count} GPUs")


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention", "flash_attention_2"])
def test_packed_rows_stay_apart_with_each_attention(attention: str) -> None:
    package = PACKAGES.get(attention)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not in the image")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4
    )
    settings = {"dtype": torch.bfloat16, "attn_implementation": attention}
    model = build_model(AutoModelForCausalLM, config, **settings).cuda().eval()
    first, second = (torch.randint(320, (1, length), device="cuda") for length in (130, 200))
    positions = torch.cat([torch.arange(130), torch.arange(200)])[None].cuda()
    with torch.no_grad():
        alone = model(input_ids=second, position_ids=positions[:, 130:], use_cache=False).logits.float()
        packed = model(input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits.float()
        seen = model(input_ids=torch.cat([first, second], 1), use_cache=False).logits.float()
    scale = alone.abs().max()
    assert (packed[:, 130:] - alone).abs().max() < 0.03 * scale
    assert (seen[:, 130:] - alone).abs().max() > 0.1 * scale, "rows that see each other differ more"


@pytest.mark.parametrize(
    ("method", "stage"),
    [(MethodType.LORA, 0), (MethodType.QLORA, 0), (MethodType.FULL, 2), (MethodType.FULL, 3), (MethodType.LORA, 3)],
)
def test_two_gpus_train_as_one_gang(
    method: MethodType, stage: int, tmp_path: Path, start: Callable[..., Launcher]
) -> None:
    needs_gpus(2)
    config = tiny.make_run(
        tmp_path,
        method=method,
        precision="bfloat16",
        gpus=2,
        processes=2,
        zero_stage=stage,
        hidden=512,
        steps=4,
        every=2,
    )
    code, result = (launcher := start(tmp_path, "a")).wait(START_SECONDS)
    assert (code, result.final_step) == (0, 4), launcher.log()
    assert newest_step(config) == 4


def test_finish_divides_a_model_among_all_gpus(tmp_path: Path) -> None:
    needs_gpus(2)
    config = tiny.make_run(tmp_path, gpus=2, processes=2, hidden=512)
    model = for_inference(load_model(AutoModelForCausalLM, config.paths.model, **division()))
    devices = {str(parameter.device) for parameter in model.parameters()}
    assert {"cuda:0", "cuda:1"} <= devices, devices
    logits = model(input_ids=torch.tensor([[1, 2, 3]], device="cuda:0")).logits
    assert torch.isfinite(logits).all()


def test_a_model_on_one_gpu_is_not_left_in_the_memory_of_the_host(tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path, gpus=1)
    model = for_inference(load_model(AutoModelForCausalLM, config.paths.model, **division()))
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}


def test_gradients_pass_a_matrix_in_nf4_as_they_pass_its_values(tmp_path: Path) -> None:
    import bitsandbytes.functional as kernels

    config = tiny.make_run(tmp_path, method=MethodType.QLORA, precision="bfloat16", gpus=1, hidden=128)
    planned = load_plan(config)
    assert planned
    auto = components(config.objective).architecture.model_class()
    layer = METHODS[MethodType.QLORA].load_base(auto, config, planned.plan).model.layers[0].mlp.up_proj
    rows = torch.randn(32, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    layer(rows).float().sum().backward()
    weights = kernels.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad.float(), weights.sum(0).expand_as(rows), rtol=0.05, atol=0.05)


def test_linear_attention_takes_the_kernels_of_its_package(tmp_path: Path) -> None:
    pytest.importorskip("fla", reason="flash-linear-attention is not in the image")
    model: Any = load_model(AutoModelForCausalLM, make("Qwen3-Next", tmp_path / "model"), dtype=torch.bfloat16).cuda()
    ids = torch.randint(5, 300, (2, 96), device="cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
    assert torch.isfinite(loss)
    assert any("chunk" in event.key and "gated" in event.key for event in seen.key_averages())
