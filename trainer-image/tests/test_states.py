"""Training state in host memory gives the same weights as without, and moments in 8 bits are resumed. Ranks on the CPU.

On GPUs, `test_gpu.py` also measures what each of them saves.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from in_process import final_weights, train_here
from launchers import START_SECONDS, Launcher

from hone.contract.methods import MethodType
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Optimizer
from hone_trainer.models.zero import deepspeed_config
from hone_trainer.protocol.planfile import require_plan, save_plan
from hone_trainer.training import checkpoint

STEPS = 4
ALL_OFFLOADED = {"offload_optimizer": True, "offload_param": True}


@pytest.fixture(scope="module")
def rank() -> Iterator[None]:
    """This process as the only rank of a run."""
    with tiny.only_rank():
        yield


def planned(root: Path, shared: Path, stage: int, **plan: Any) -> RunConfig:
    """A run of Full with these fields of the plan."""
    config = tiny.make_run(
        root, shared=shared, method=MethodType.FULL, zero_stage=stage, steps=STEPS, every=2, accumulation=2, hidden=128
    )
    change(config, **plan)
    return config


def change(config: RunConfig, **plan: Any) -> None:
    """Change the plan of a run."""
    file = require_plan(config)
    save_plan(config, file.model_copy(update={"plan": file.plan.model_copy(update=plan)}))


def without_last(config: RunConfig) -> None:
    """Delete the last checkpoint, as if the run had been killed before it."""
    final = checkpoint.final_checkpoint(config)
    assert final
    shutil.rmtree(final[0])


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two models' weights."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.train
@pytest.mark.timeout(900)
def test_offloaded_state_gives_the_same_weights_from_a_checkpoint_without_it(
    tmp_path: Path, start: Callable[..., Launcher]
) -> None:
    config = planned(tmp_path, tmp_path, 3)
    launcher = start(tmp_path, "plain")
    assert launcher.wait(START_SECONDS)[0] == 0, launcher.log()
    plain = final_weights(config)
    without_last(config)
    change(config, **ALL_OFFLOADED)
    launcher = start(tmp_path, "offloaded")
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step) == (0, STEPS), launcher.log()
    assert 'resumedFromStep": 2' in launcher.log()
    # The gradients' norm is summed in another order.
    assert differences(final_weights(config), plain) < 1e-6


@pytest.mark.train
@pytest.mark.usefixtures("rank")
def test_moments_in_8_bits_are_resumed_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = planned(tmp_path / "run", tmp_path / "shared", 0, optim=Optimizer.PAGED_ADAMW_8BIT)
    train_here(tmp_path / "run", monkeypatch)
    weights, final = final_weights(config), checkpoint.final_checkpoint(config)
    assert final
    states = torch.load(final[0] / "optimizer.pt", weights_only=True)["state"]
    # bitsandbytes saves what is quantized under a key of its own.
    moments = {name: state.get("__bnb_optimizer_quant_state__", state)["state1"] for name, state in states.items()}
    in_8_bits = [moment.numel() for moment in moments.values() if moment.dtype == torch.uint8]
    assert sum(in_8_bits) > sum(moment.numel() for moment in moments.values()) / 2

    without_last(config)
    train_here(tmp_path / "run", monkeypatch)
    assert differences(final_weights(config), weights) == 0.0


def test_deepspeed_reads_what_is_offloaded(tmp_path: Path) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    config = planned(tmp_path / "run", tmp_path / "shared", 3, **ALL_OFFLOADED)
    written = deepspeed_config(require_plan(config).plan)
    assert written
    read = DeepSpeedConfig({**written, "train_batch_size": 8})
    zero = read.zero_config
    assert (str(zero.offload_optimizer.device), str(zero.offload_param.device)) == ("cpu", "cpu")
    assert read.zero_force_ds_cpu_optimizer is False, "DeepSpeed would compile its own AdamW when training starts"
    change(config, offload_optimizer=None, offload_param=None)
    plain = deepspeed_config(require_plan(config).plan)
    assert plain
    assert {"offload_optimizer", "offload_param"}.isdisjoint(plain["zero_optimization"])
    assert "zero_force_ds_cpu_optimizer" not in plain
