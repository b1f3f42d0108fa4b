"""PEFT's configuration of a LoRA adapter for a model: the same where prepare counts it and where ranks train it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers.pytorch_utils import Conv1D

from hone_trainer.models.architectures import HEADS, Architecture
from hone_trainer.models.language import language_model
from hone_trainer.protocol.errors import BadInput, clip

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

TARGETS = "spec.method.lora.targetModules"
ALL = "all-linear"


class Adapted(NamedTuple):
    """A part of a model that an adapter is put on.

    Attributes:
        name: of the layer, or of the module with the experts.
        inputs, outputs: values of a token that its first matrix takes in, and that its second one hands on.
        factor: the rows of the first matrix, as a multiple of the adapter's rank.
        experts: values of the tensor that it changes, with all experts or their router; 0 for a linear layer.
    """

    name: str
    inputs: int
    outputs: int
    factor: int = 1
    experts: int = 0


def linear_layers(model: "PreTrainedModel") -> dict[str, torch.nn.Module]:
    """The linear layers of the language model by name, without its output head or the head of an objective."""
    output = model.get_output_embeddings()
    inner = language_model(model)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not output
        and name not in HEADS
        and (inner is None or name.startswith(f"{inner}."))
    }


def lora_config(
    model: "PreTrainedModel",
    architecture: Architecture,
    targets: list[str] | None,
    *,
    rank: int,
    alpha: int,
    dropout: float,
) -> "LoraConfig":
    """PEFT's configuration of an adapter.

    Args:
        model: what it is put on; its weights are not read.
        architecture: as what it was loaded.
        targets: names of linear layers, or their ends; None: all that PEFT knows as linear, experts among them.
        rank, alpha, dropout: of the adapter.
    """
    from peft import LoraConfig

    modules: list[str] | str = targets or ALL
    if language_model(model) is not None:
        # By their whole names: those of other parts, such as a vision tower, end in the same way.
        modules = [name for name in linear_layers(model) if targets is None or any(matches(name, t) for t in targets)]
    return LoraConfig(
        task_type=architecture.task_type, r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=modules
    )


def adapted_parts(
    model: "PreTrainedModel", architecture: Architecture, targets: list[str] | None
) -> tuple[Adapted, ...]:
    """What PEFT puts an adapter on. The model is changed.

    Args:
        model: on the meta device.
        architecture: as what it was loaded.
        targets: as of `lora_config`.

    Raises:
        BadInput: a target is no linear layer, or PEFT cannot adapt this model.
    """
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer

    layers, names = linear_layers(model), targets or []
    config = lora_config(model, architecture, targets, rank=1, alpha=1, dropout=0.0)
    unmatched = [target for target in names if not any(matches(layer, target) for layer in layers)]
    if not config.target_modules or not layers:
        raise _unknown(names or [ALL], layers)
    try:
        adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    except ValueError as error:
        if unmatched and "not found" in str(error):
            raise _unknown(unmatched, layers) from error
        # Such as a part of what is one tensor: PEFT names it.
        raise BadInput(TARGETS, clip(str(error), 300), "Remove it, to adapt all linear layers.") from error
    # PEFT takes the names of experts away, and adapts the tensors that these have become.
    if unknown := [target for target in unmatched if target in (config.target_modules or ())]:
        raise _unknown(unknown, layers)
    return tuple(_part(name, module) for name, module in adapted.named_modules() if isinstance(module, LoraLayer))


def _part(name: str, module: Any) -> Adapted:
    from peft.tuners.lora.layer import ParamWrapper

    (first,), (second,) = module.lora_A.values(), module.lora_B.values()
    wraps = isinstance(module, ParamWrapper)
    experts = module.get_param().numel() if wraps else 0
    return Adapted(name, first.in_features, second.out_features, first.out_features, experts)


def matches(module: str, target: str) -> bool:
    """Whether a target names a module, as PEFT compares them."""
    return module == target or module.endswith(f".{target}")


def _unknown(targets: list[str], layers: Iterable[str]) -> BadInput:
    ends = sorted({name.rsplit(".", 1)[-1] for name in layers})
    return BadInput(
        TARGETS,
        f"`{targets[0]}` is not a linear layer of this model",
        f"Use one of {', '.join(ends)}." if ends else "Use method Full: this model has no linear layer.",
    )
