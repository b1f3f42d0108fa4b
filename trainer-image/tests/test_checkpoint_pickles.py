"""Pickles in a checkpoint: none of them runs code when a run resumes, even where COMPLETE.json has its digest."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from hone_trainer import train
from hone_trainer.models import zero
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint

pytestmark = pytest.mark.slow


class RunsCode:
    """What an attacker saves: unpickled, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """DeepSpeed's engine for checkpoints, as a rank uses it."""
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    monkeypatch.setattr(TorchCheckpointEngine, "load", TorchCheckpointEngine.load)
    zero.load_checkpoints_as_data()
    return TorchCheckpointEngine()


def test_the_attack_works_without_the_guard(tmp_path: Path) -> None:
    torch.save({"module": RunsCode(tmp_path / "ran")}, tmp_path / "states.pt")
    torch.load(tmp_path / "states.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "plain pickle"])
def test_deepspeed_runs_no_code_from_a_checkpoint(tmp_path: Path, engine: Any, zipped: bool) -> None:
    path = tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    torch.save({"optimizer_state_dict": RunsCode(tmp_path / "ran")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        engine.load(str(path), map_location="cpu")
    assert not (tmp_path / "ran").exists()


def test_deepspeed_loads_what_it_saves_itself(tmp_path: Path, engine: Any) -> None:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    state = {
        "loss_scaler": LossScaler(2.0),
        "zero_stage": ZeroStageEnum.gradients,
        "param_slice_mappings": [{"weight": fragment_address(numel=4, start=8)}],
        "fp32": torch.arange(4.0),
    }
    engine.save(state, str(tmp_path / "states.pt"))
    loaded = engine.load(str(tmp_path / "states.pt"), map_location="cpu")
    assert loaded["loss_scaler"].cur_scale == 2.0
    assert loaded["zero_stage"] is ZeroStageEnum.gradients
    assert loaded["param_slice_mappings"] == state["param_slice_mappings"]
    assert torch.equal(loaded["fp32"], state["fp32"])


class ByName:
    """Pickled as early releases of Python 3.11 pickle members of an Enum, and as an attacker would reach further."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.owner, self.name)


def test_deepspeed_loads_an_enum_that_was_pickled_by_name(tmp_path: Path, engine: Any) -> None:
    from deepspeed.runtime.zero.config import ZeroStageEnum

    engine.save({"zero_stage": ByName(ZeroStageEnum, "gradients")}, str(tmp_path / "states.pt"))
    assert engine.load(str(tmp_path / "states.pt"), map_location="cpu") == {"zero_stage": ZeroStageEnum.gradients}


@pytest.mark.parametrize("name", ["__class__", "__subclasses__", "mro"])
def test_deepspeed_reads_no_other_attribute(tmp_path: Path, engine: Any, name: str) -> None:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    for owner in (ZeroStageEnum, LossScaler):
        engine.save({"zero_stage": ByName(owner, name)}, str(tmp_path / "states.pt"))
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            engine.load(str(tmp_path / "states.pt"), map_location="cpu")


@pytest.mark.parametrize("name", ["rng_state.pth", "optimizer.pt", "scheduler.pt"])
def test_no_other_file_of_a_checkpoint_runs_code(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_run(tmp_path, steps=4, every=2, keep=3, shared=shared)
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    train._train(0, StatusDir(tmp_path))
    directory = checkpoint.checkpoints_dir(config)
    (checkpoint.checkpoint_dir(directory, 4) / checkpoint.COMPLETE_FILE).unlink()
    first = checkpoint.checkpoint_dir(directory, 2)
    assert (first / name).exists(), "otherwise nothing would load it"
    torch.save({"python": RunsCode(tmp_path / "ran"), "state": {}}, first / name)
    # Whoever can write the file can write its digest, too.
    tiny.mark_whole(first, step=2, world_size=1, zero_stage=0, final=False)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        train._train(0, StatusDir(tmp_path))
    assert not (tmp_path / "ran").exists()
