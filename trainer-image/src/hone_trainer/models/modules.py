"""What a model is made of, as transformers builds it: read off one that has no memory for its weights.

The names and shapes in a model's files are not those of its modules: experts that are one tensor in a module are many
in the files, and which matrix belongs to a linear layer no file says.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizers_utils import should_convert_module

from hone.contract.settings import Method
from hone_trainer.models.adapters import adapted_parts
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.facts import NOT_QUANTIZED, ModelFacts, read_model
from hone_trainer.models.head import is_head
from hone_trainer.models.language import other_parts
from hone_trainer.models.loading import FIELD
from hone_trainer.models.trial import check_loads

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def read_base(directory: str, architecture: Architecture, method: Method) -> ModelFacts:
    """The facts about the model in a directory, with what it is made of.

    Args:
        directory: of the base model.
        architecture: as what it is loaded.
        method: how it is trained.

    Raises:
        BadInput: it cannot be read or loaded, or the adapter cannot be put on it.
    """
    facts = read_model(directory, architecture)
    return with_modules(facts, check_loads(facts.directory, architecture, FIELD), architecture, method)


def with_modules(facts: ModelFacts, model: "PreTrainedModel", architecture: Architecture, method: Method) -> ModelFacts:
    """The facts with what a model is made of that has no memory for its weights, and the parts that are trained."""
    # A new head is not in the files, and as many outputs as the job needs only the plan knows.
    shapes = {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if name in facts.shapes or not is_head(name)
    }
    unused = other_parts(model)
    experts = {
        name: shape
        for name, shape in shapes.items()
        if len(shape) == 3 and name not in unused and not _is_convolution(model, name)
    }
    quantized = _quantized(model)
    targets = method.lora.target_modules if method.lora else None
    adapted = adapted_parts(model, architecture, targets) if method.type.adapts else ()
    return replace(facts, shapes=shapes, unused=unused, experts=experts, quantized=quantized, adapted=adapted)


def _is_convolution(model: "PreTrainedModel", parameter: str) -> bool:
    module = model.get_submodule(parameter.rpartition(".")[0])
    return isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d)


def _quantized(model: "PreTrainedModel") -> dict[str, tuple[int, ...]]:
    """The matrices that transformers replaces by those of bitsandbytes, by the names of their layers."""
    skipped = [*NOT_QUANTIZED, *(model._keep_in_fp32_modules or ())]
    return {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, skipped)
    }
