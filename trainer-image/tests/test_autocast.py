"""Weights in fp32 are trained in bf16 where autocast is asked for, as on GPUs, by every objective's trainer."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from in_process import train_here

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone_trainer.objectives.inputs import training_arguments

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def rank() -> Iterator[None]:
    """This process as the rank of every run here."""
    with tiny.only_rank():
        yield


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.usefixtures("rank")
def test_layers_multiply_in_bf16_while_weights_stay_in_fp32(
    objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_bf16(*arguments: Any) -> dict[str, Any]:
        return {**training_arguments(*arguments), "bf16": True}

    # Imported first, or they would keep what is patched here. All of them: an objective may build on another's module.
    for name in (*(each.module for each in Objective), "generation"):
        module = import_module(f"hone_trainer.objectives.{name}")
        monkeypatch.setattr(module, "training_arguments", in_bf16, raising=False)
    dtypes: set[tuple[torch.dtype, torch.dtype]] = set()

    def note(layer: torch.nn.Module, _: Any, output: Any) -> None:
        if isinstance(layer, torch.nn.Linear) and layer.weight.requires_grad and torch.is_grad_enabled():
            dtypes.add((layer.weight.dtype, output.dtype))

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    AcceleratorState._reset_state()
    try:
        tiny.make_run(tmp_path, objective=objective, method=MethodType.FULL, steps=1, micro_batch=8)
        train_here(tmp_path, monkeypatch)
    finally:
        hook.remove()
        AcceleratorState._reset_state()
    assert dtypes == {(torch.float32, torch.bfloat16)}
