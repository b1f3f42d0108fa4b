"""What is trained: the head, the adapter, and which weights stay as they are."""

from dataclasses import replace

from hone.contract.methods import MethodType
from hone.contract.settings import Lora
from hone_trainer.models.facts import ModelFacts
from hone_trainer.planning import needs
from hone_trainer.planning.batches import why_by_rows
from hone_trainer.planning.choices.base import Choice, Choices, spec_or
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.protocol.errors import BadInput

_DROPOUT = 0.05
ATTENTION = "[q_proj, k_proj, v_proj, o_proj]"
"""The layers of attention, as most families name them."""


def choose_head(inputs: PlanInputs, choices: Choices) -> Choices:
    """A head for the classes, or for one score, where the objective trains one.

    Raises:
        BadInput: the model has another one.
    """
    if not needs.has_head(inputs.objective):
        return choices
    return replace(choices, model=inputs.model.with_head(len(inputs.classes.names) if inputs.classes else 1))


def choose_lora(inputs: PlanInputs, choices: Choices) -> Choices:
    """The adapter; none with Full.

    Raises:
        BadInput: most of the model cannot be quantized, or the adapter cannot have the requested dropout.
    """
    if not inputs.method.adapts:
        return choices.choose(method=Choice(inputs.method.value))
    _check_quantized(inputs)
    configured, default_rank = inputs.config.method.lora or Lora(), Lora().rank
    rank = configured.rank
    merged = _why_merged(inputs, choices)
    choices = choices.choose(
        lora_rank=spec_or(rank if rank != default_rank else None, rank, "Default."),
        method=Choice(inputs.method.value, merged),
        lora_alpha=spec_or(configured.alpha, rank, "Equal to the rank."),
        lora_dropout=_dropout(inputs, configured),
    )
    lora = configured.model_copy(
        update={"alpha": choices.get("lora_alpha", int), "dropout": choices.get("lora_dropout", float)}
    )
    return replace(choices, lora=lora)


def unsupported_methods(model: ModelFacts) -> tuple[MethodType, ...]:
    """The methods that the plan refuses for a model: QLoRA would not quantize experts, which are most of it."""
    return tuple(method for method in MethodType if method.facts.quantized and model.expert_parameters)


def _check_quantized(inputs: PlanInputs) -> None:
    """Refuse QLoRA where it would not quantize the experts."""
    model = inputs.model
    if inputs.method in unsupported_methods(model):
        share = model.expert_parameters / model.parameters
        raise BadInput(
            "spec.method.type",
            f"{inputs.method.value} would leave {share:.0%} of the model in 16 bits: transformers holds the experts of "
            "a layer in one tensor, which bitsandbytes does not quantize",
            "Use LoRA, or another base model.",
        )


def _why_merged(inputs: PlanInputs, choices: Choices) -> str | None:
    """Why the artifact is a whole model even if the spec does not ask for one."""
    if needs.has_head(inputs.objective):
        return "The adapter is merged into a whole model: vLLM cannot serve a trained head in an adapter."
    if choices.model.adapted_experts:
        return (
            "The adapter is merged into a whole model: vLLM cannot serve adapters on experts. For one that it can, set "
            f"spec.method.lora.targetModules to {ATTENTION}."
        )
    if not choices.model.serves_adapter:
        return f"The adapter is merged into a whole model: vLLM cannot serve adapters of {choices.model.model_type}."
    return None


def _dropout(inputs: PlanInputs, configured: Lora) -> Choice:
    if inputs.model.adapted_experts:
        if configured.dropout:
            raise BadInput(
                "spec.method.lora.dropout",
                "must be 0 here: PEFT has no dropout for adapters on experts",
                f"Remove it, or set spec.method.lora.targetModules to {ATTENTION}.",
            )
        return spec_or(configured.dropout, 0.0, "PEFT has none for adapters on experts.")
    if not needs.defaults(inputs.objective).lora_dropout:
        return spec_or(configured.dropout, 0.0, "Adds noise to the comparison.")
    small, why = why_by_rows(inputs.rows)
    return spec_or(configured.dropout, _DROPOUT if small else 0.0, why)


def choose_trainable(inputs: PlanInputs, choices: Choices) -> Choices:
    """How many parameters are trained.

    Raises:
        BadInput: what is to be frozen or adapted is not in this model.
    """
    model, freeze = choices.model, inputs.config.method.freeze
    frozen = model.frozen_parameters(freeze)
    trainable = model.lora_parameters(choices.lora.rank) if choices.lora else model.parameters - frozen
    if not frozen:
        return choices.choose(trainable_parameters=Choice(trainable))
    unused = model.frozen_parameters(None)
    why = [f"spec.method.freeze freezes {frozen - unused:,} of {model.parameters:,}."] if frozen > unused else []
    why += [f"{unused:,} belong to parts that no text passes, such as a vision tower."] if unused else []
    choices = choices.choose(trainable_parameters=Choice(trainable, " ".join(why)))
    if not (freeze and freeze.embeddings and model.tied):
        return choices
    return choices.warn(
        "The model's output head is tied to its input embeddings, so spec.method.freeze.embeddings freezes both."
    )
