"""QLoRA: how ranks hold the base model. Runs of it stand among those of the other methods."""

from pathlib import Path

import pytest
import tiny
import torch

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.plan import Plan
from hone.contract.settings import Method
from hone_trainer.methods import METHODS
from hone_trainer.models import head
from hone_trainer.models.modules import read_base
from hone_trainer.objectives import components
from hone_trainer.planning.memory_terms import NF4_BYTES
from hone_trainer.protocol.planfile import load_plan


def loaded(root: Path, objective: Objective, precision: str = "float32") -> tuple[torch.nn.Module, Path]:
    """A base model as ranks load it, and the unquantized one's directory."""
    config = tiny.make_run(root, method=MethodType.QLORA, objective=objective, hidden=128)
    planned = load_plan(config)
    assert planned is not None
    plan: Plan = planned.plan.model_copy(update={"precision": precision})
    scores = {} if objective is Objective.SFT else head.settings(None)
    model = METHODS[MethodType.QLORA].load_base(
        components(objective).architecture.model_class(), config, plan, **scores
    )
    return model, Path(config.paths.model)


@pytest.mark.parametrize(
    ("objective", "precision"), [(Objective.SFT, "bfloat16"), (Objective.REWARD, "float32")], ids=str
)
def test_linear_layers_are_held_in_four_bits_and_all_else_in_the_planned_precision(
    objective: Objective, precision: str, tmp_path: Path
) -> None:
    from bitsandbytes.nn import Linear4bit

    model, directory = loaded(tmp_path, objective, precision)
    quantized = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert {name.rsplit(".", 1)[-1] for name in quantized} == {
        *(f"{part}_proj" for part in "qkvo"),
        *(f"{part}_proj" for part in ("gate", "up", "down")),
    }
    others = {name: p for name, p in model.named_parameters() if name.removesuffix(".weight") not in quantized}
    assert {p.dtype for p in others.values()} == {getattr(torch, precision)}
    assert ("score.weight" in others) == (objective is Objective.REWARD)
    # A form for inference alone, which an evaluation would turn the weights into on CPUs that have an instruction.
    assert not any(module.support_avx512bf16_for_cpu for module in quantized.values())
    held = 0
    for module in quantized.values():
        state = module.weight.quant_state
        assert (state.quant_type, state.nested) == ("nf4", True)
        assert module.compute_dtype == getattr(torch, precision)
        held += module.weight.numel() + state.absmax.numel() + 4 * state.state2.absmax.numel()
    facts = read_base(str(directory), components(objective).architecture, Method(type=MethodType.QLORA))
    # As the estimate counts them; what begins a block of scales counts whole.
    assert held == pytest.approx(sum(facts.quantized_sizes) * NF4_BYTES, rel=2e-3)


def test_what_it_computes_is_near_to_the_unquantized_model(tmp_path: Path) -> None:
    model, directory = loaded(tmp_path, Objective.SFT)
    whole = components(Objective.SFT).architecture.model_class().from_pretrained(directory)
    inside, outside = (part.model.layers[0].mlp.up_proj for part in (model, whole))
    inputs = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        right = outside(inputs)
        off = (inside(inputs) - right).norm() / right.norm()
    assert 0.01 < off < 0.15, "NF4 errs by a tenth on weights from the normal distribution"
