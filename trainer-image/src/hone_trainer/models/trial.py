"""A trial load of a model without memory for its weights: whether config, generation config and weights fit together.

What does not fit would fail only when every GPU of the run is held and loads the weights.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.models.architectures import Architecture
from hone_trainer.models.head import is_head
from hone_trainer.models.loading import load_model
from hone_trainer.protocol.errors import BadInput, clip
from hone_trainer.protocol.volumes import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_REMEDY = "Copy the whole model, with the config and the weights of the same version."


def check_loads(directory: str | Path, architecture: Architecture, field: str) -> "PreTrainedModel":
    """A model as transformers loads it, without memory for its weights.

    Args:
        directory: of the model, which `read_model` has read.
        architecture: what it is loaded as; weights of a new head may be missing or of another shape.
        field: the spec's field that names it, for errors.

    Raises:
        BadInput: it cannot be built, weights are missing, or of another shape than the config says.
    """
    try:
        # On the meta device tensors have shapes, but no memory.
        model, report = load_model(
            architecture.model_class(),
            directory,
            field,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except BadInput:
        raise
    except Exception as error:  # each architecture raises its own
        problem = f"it cannot be loaded: {clip(shown(f'{type(error).__name__}: {error}'), 300)}"
        raise BadInput(field, problem, _REMEDY) from error
    _check_report(report, architecture, field)
    trial: PreTrainedModel = model
    return trial


def _check_report(report: dict[str, Any], architecture: Architecture, field: str) -> None:
    def matters(name: str) -> bool:
        return not (architecture.has_head and is_head(name))

    if missing := sorted(name for name in report["missing_keys"] if matters(name)):
        raise BadInput(field, f"{len(missing)} of its weights are missing, the first is {shown(missing[0])}", _REMEDY)
    if others := sorted((name, tuple(a), tuple(b)) for name, a, b in report["mismatched_keys"] if matters(name)):
        name, stored, expected = others[0]
        raise BadInput(
            field,
            f"{shown(name)} has the shape {list(stored)}, but its config.json needs {list(expected)}",
            _REMEDY,
        )
