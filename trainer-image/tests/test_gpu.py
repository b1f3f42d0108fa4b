"""What only a GPU shows: bf16, NCCL on one rank, fused AdamW, NF4 by bitsandbytes, offloading, and memory that is full.

`make gpu` runs these; random models of some thousand weights are enough. The rank is this process, or a launcher's.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from in_process import finished, train_here
from launchers import START_SECONDS, Launcher, newest_step

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.settings import Optimizer, Precision
from hone_trainer.methods import METHODS
from hone_trainer.models.facts import read_model
from hone_trainer.models.zero import BUCKET_PARAMETERS
from hone_trainer.objectives import components
from hone_trainer.objectives.trainer import TrainerMixin
from hone_trainer.planning.memory_fallback import load_level
from hone_trainer.protocol.planfile import load_plan, require_plan, save_plan
from hone_trainer.protocol.probe import load_probe
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint
from hone_trainer.training.offload import offload_activations

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

PRECISIONS = {MethodType.LORA: "bfloat16", MethodType.QLORA: "bfloat16", MethodType.FULL: "float32"}
"""As prepare plans on a GPU without ZeRO; Full computes in bf16 by autocast."""
OFFLOADING_RUNG = 4
"""From a micro-batch of 4 on one GPU: 2, 1, checkpointing, offloading."""


@pytest.fixture(scope="module")
def rank() -> Iterator[None]:
    """This process as the only rank of a run on the GPU."""
    with tiny.only_rank():
        yield


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[Any]]]:
    """What the training steps of a run were made with: devices, optimizer, backend, types of layers and outputs."""
    seen: dict[str, set[Any]] = defaultdict(set)
    original = TrainerMixin.training_step

    def training_step(self: Any, model: torch.nn.Module, inputs: Any, *more: Any) -> Any:
        seen["fused"] |= {group["fused"] for group in self.optimizer.param_groups}
        seen["backend"].add(torch.distributed.get_backend())
        seen["devices"] |= {tensor.device.type for tensor in (*model.parameters(), *inputs.values())}
        seen["trained"] |= {weight.dtype for weight in model.parameters() if weight.requires_grad}
        return original(self, model, inputs, *more)

    def note(layer: torch.nn.Module, _: Any, output: Any) -> None:
        if isinstance(layer, torch.nn.Linear) and torch.is_grad_enabled():
            seen["layers"].add(type(layer).__name__)
            seen["outputs"].add(output.dtype)

    monkeypatch.setattr(TrainerMixin, "training_step", training_step)
    hook = torch.nn.modules.module.register_module_forward_hook(note)
    yield seen
    hook.remove()


@pytest.mark.parametrize("method", list(MethodType), ids=str)
@pytest.mark.usefixtures("rank")
def test_a_run_trains_and_is_scored_on_the_gpu(
    method: MethodType, tmp_path: Path, steps: dict[str, set[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"method": method, "precision": PRECISIONS[method], "gpus": 1, "hidden": 128}
    config = tiny.make_run(tmp_path, **plan, steps=40, every=40, micro_batch=32, evaluate=20)
    train_here(tmp_path, monkeypatch)

    assert steps["devices"] == {"cuda"}
    assert steps["backend"] == {"nccl"}
    assert steps["fused"] == {True}
    assert steps["trained"] == {torch.float32}, "in bf16 small updates would be lost"
    assert torch.bfloat16 in steps["outputs"]
    assert ("Linear4bit" in steps["layers"]) == (method is MethodType.QLORA)
    reported = StatusDir(tmp_path / "status").statuses()[0]
    assert (reported.step, reported.stage) == (40, "Done")
    assert 0 < reported.loss < 5
    assert 0 < reported.eval_loss < 5
    assert reported.gpu_peak_bytes > 0
    report = finished(config)
    assert report.evaluation.scores
    assert report.artifact.kind == ("Adapter" if method.adapts else "Model")


@pytest.mark.parametrize("method", list(MethodType), ids=str)
@pytest.mark.usefixtures("rank")
def test_in_float16_the_loss_is_scaled_and_what_is_trained_stays_in_32_bits(
    method: MethodType, tmp_path: Path, steps: dict[str, set[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    precision = PRECISIONS[method].replace("bfloat16", "float16")
    plan = {"method": method, "precision": precision, "compute_dtype": Precision.FLOAT16, "gpus": 1, "hidden": 128}
    config = tiny.make_run(tmp_path, **plan, steps=40, every=20, micro_batch=32)
    train_here(tmp_path, monkeypatch)
    assert steps["trained"] == {torch.float32}
    assert torch.float16 in steps["outputs"] and torch.bfloat16 not in steps["outputs"]
    final = checkpoint.final_checkpoint(config)
    assert final and torch.load(final[0] / "scaler.pt", weights_only=True)["scale"] > 1
    reported = StatusDir(tmp_path / "status").statuses()[0]
    assert (reported.step, reported.stage) == (40, "Done")
    assert 0 < reported.loss < 5
    assert finished(config).evaluation.scores


@pytest.mark.usefixtures("rank")
def test_a_run_trains_with_its_activations_in_host_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl.models.activation_offloading as offloading

    entered = []
    original = offloading.OffloadActivations.__enter__
    monkeypatch.setattr(offloading.OffloadActivations, "__enter__", lambda self: entered.append(self) or original(self))
    monkeypatch.setenv("HONE_ATTEMPT", f'{{"number": 2, "memoryRung": {OFFLOADING_RUNG}}}')
    config = tiny.make_run(tmp_path, precision="bfloat16", gpus=1, hidden=128, steps=2, micro_batch=4)
    train_here(tmp_path, monkeypatch)
    assert len(entered) >= 2 * 4, "in each of four micro-batches of two steps"
    reported = StatusDir(tmp_path / "status").statuses()[0]
    assert (reported.step, reported.stage) == (2, "Done")
    assert math.isfinite(reported.loss)
    assert newest_step(config) == 2


def test_offloading_saves_memory_and_changes_no_gradient() -> None:
    rows, width, layers = 16384, 1024, 12
    torch.manual_seed(0)
    blocks = [layer for _ in range(layers) for layer in (torch.nn.Linear(width, width), torch.nn.GELU())]
    model = torch.nn.Sequential(*blocks).cuda()
    inputs = torch.randn(rows, width, device="cuda")
    plain = SimpleNamespace(model=model, micro_batch_step=lambda: model(inputs).square().mean().backward())
    offloaded = SimpleNamespace(model=model, micro_batch_step=plain.micro_batch_step)
    offload_activations(offloaded)

    def step(trainer: SimpleNamespace) -> tuple[int, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        level = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        trainer.micro_batch_step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - level, model[0].weight.grad.clone()

    for trainer in (plain, offloaded):
        step(trainer)  # the first one also takes what the libraries keep
    (peak, gradient), (less, same) = step(plain), step(offloaded)
    saved_for_backward = 2 * layers * rows * width * 4
    assert peak > 0.8 * saved_for_backward
    assert less < 0.7 * peak
    torch.testing.assert_close(same, gradient)


def test_nf4_on_the_gpu_is_near_to_the_unquantized_model(tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path, method=MethodType.QLORA, precision="bfloat16", gpus=1, hidden=128)
    planned = load_plan(config)
    assert planned
    auto = components(Objective.SFT).architecture.model_class()
    model = METHODS[MethodType.QLORA].load_base(auto, config, planned.plan)
    whole = auto.from_pretrained(config.paths.model, dtype=torch.bfloat16)
    inside, outside = (part.model.layers[0].mlp.up_proj.to("cuda") for part in (model, whole))
    assert inside.weight.dtype == torch.uint8
    assert inside.weight.device.type == "cuda"
    rows = torch.randn(64, 128, generator=torch.Generator().manual_seed(1)).to("cuda", torch.bfloat16)
    with torch.inference_mode():
        right = outside(rows).float()
        off = (inside(rows).float() - right).norm() / right.norm()
    assert 0.01 < off < 0.15, "NF4 errs by a tenth on weights from the normal distribution"


def test_memory_that_the_gpu_refuses_leads_to_a_smaller_micro_batch(
    tmp_path: Path, start: Callable[..., Launcher]
) -> None:
    plan = {"precision": "bfloat16", "gpus": 1, "micro_batch": 4, "accumulation": 2}
    config = tiny.make_run(tmp_path, **plan, steps=6, every=2, probe=True)
    launcher = start(tmp_path, "a", faults="gpumem@4:above=2")
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step, result.restarts) == (0, 6, 1), launcher.log()
    assert result.changes == ["microBatchSize 4 → 2, gradientAccumulationSteps 2 → 4: out of memory at step 4"]
    assert (load_level(config).level, newest_step(config)) == (1, 6)
    measured = load_probe(config, level=0)
    assert measured
    assert measured.peak_bytes > 0
    assert measured.seconds_per_step > 0


STATES: dict[str, tuple[dict[str, Any], float]] = {
    "plain": ({}, 16),
    "8 bits": ({"optim": Optimizer.ADAMW_8BIT}, 10),
    "paged": ({"optim": Optimizer.PAGED_ADAMW_8BIT}, 8),
    "optimizer in host memory": ({"zero_stage": 3, "offload_optimizer": True}, 2),
    "all in host memory": ({"zero_stage": 3, "offload_optimizer": True, "offload_param": True}, 0),
}
"""Fields of the plan, and the bytes per parameter that its estimate has for weights, gradients and optimizer state."""


@pytest.mark.parametrize("name", STATES)
def test_training_state_takes_as_much_of_the_gpu_as_estimated(
    name: str, tmp_path: Path, start: Callable[..., Launcher]
) -> None:
    changes, per_parameter = STATES[name]
    stage = changes.get("zero_stage", 0)
    precision = "bfloat16" if stage else "float32"
    shape = {"method": MethodType.FULL, "gpus": 1, "hidden": 2048, "precision": precision, "zero_stage": stage}
    config = tiny.make_run(tmp_path, **shape, steps=2, every=2, probe=True)
    file = require_plan(config)
    save_plan(config, file.model_copy(update={"plan": file.plan.model_copy(update=changes)}))
    launcher = start(tmp_path, "a")
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step, result.changes) == (0, 2, []), launcher.log()
    measured = load_probe(config, level=0)
    assert measured
    parameters = read_model(config.paths.model).parameters
    # DeepSpeed's buckets, live weights and the largest gradient; activations of 16 tokens are small.
    buckets = 2 * (3 * BUCKET_PARAMETERS + parameters) + 2**26 if stage else 2**26
    least, most = per_parameter * parameters, per_parameter * parameters * 1.1 + buckets
    assert 0.9 * least <= measured.peak_bytes <= most


@pytest.mark.parametrize("method", list(MethodType), ids=str)
@pytest.mark.usefixtures("rank")
def test_a_base_model_is_read_straight_to_the_gpu(method: MethodType, tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path, method=method, precision=PRECISIONS[method], gpus=1, hidden=128)
    planned = load_plan(config)
    assert planned
    model = METHODS[method].load_base(components(Objective.SFT).architecture.model_class(), config, planned.plan)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
