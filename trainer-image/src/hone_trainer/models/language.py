"""Which part of a multimodal model is its language model: the only part that text trains, whatever else it can read."""

from typing import TYPE_CHECKING, Any

from hone_trainer.models.architectures import HEADS

IMAGE_TEXT = ("mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Models of images and text whose language model text can train, by transformers' names; they are no causal language
models to transformers, unlike those of Gemma 3."""

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def reads_images(config: Any) -> bool:
    """Whether a model is one of these."""
    return config.model_type in IMAGE_TEXT


def language_model(model: "PreTrainedModel") -> str | None:
    """The name of the module with the layers of the language model; None where that is all of the model."""
    text = model.config.get_text_config()
    if text is model.config:
        return None
    decoder = model.get_decoder()
    name = next((name for name, module in model.named_modules() if module is decoder), "")
    return name or None


def other_parts(model: "PreTrainedModel") -> frozenset[str]:
    """Names of the weights that no text passes: those of vision towers, of projections into the language model, and the
    like. Empty for a model of text alone."""
    inner = language_model(model)
    if inner is None:
        return frozenset()
    output = model.get_output_embeddings()
    used = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    return frozenset(
        name
        for name, parameter in model.named_parameters()
        if not name.startswith(f"{inner}.") and id(parameter) not in used and name.split(".")[0] not in HEADS
    )


def freeze_other_parts(model: "PreTrainedModel") -> None:
    """Take them out of training: a step would leave them without gradients, for which every rank would wait."""
    others = other_parts(model)
    for name, parameter in model.named_parameters():
        if name in others:
            parameter.requires_grad_(False)
