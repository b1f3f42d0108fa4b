"""What is trained: the head, the adapter, and which weights stay as they are."""

from dataclasses import replace

from hone.contract.settings import Lora
from hone_trainer.planning import needs
from hone_trainer.planning.batches import why_by_rows
from hone_trainer.planning.choices.base import Choice, Choices, spec_or
from hone_trainer.planning.inputs import PlanInputs

_DROPOUT = 0.05


def choose_head(inputs: PlanInputs, choices: Choices) -> Choices:
    """A head for the classes, or for one score, where the objective trains one.

    Raises:
        BadInput: the model has another one.
    """
    if not needs.has_head(inputs.objective):
        return choices
    return replace(choices, model=inputs.model.with_head(len(inputs.classes.names) if inputs.classes else 1))


def choose_lora(inputs: PlanInputs, choices: Choices) -> Choices:
    """The adapter; none with Full."""
    if not inputs.method.adapts:
        return choices.choose(method=Choice(inputs.method.value))
    configured, default_rank = inputs.config.method.lora or Lora(), Lora().rank
    rank = configured.rank
    merged = "The adapter is merged into a whole model: vLLM cannot serve a trained head in an adapter."
    choices = choices.choose(
        lora_rank=spec_or(rank if rank != default_rank else None, rank, "Default."),
        method=Choice(inputs.method.value, merged if needs.has_head(inputs.objective) else None),
        lora_alpha=spec_or(configured.alpha, rank, "Equal to the rank."),
        lora_dropout=_dropout(inputs, configured),
    )
    lora = configured.model_copy(
        update={"alpha": choices.get("lora_alpha", int), "dropout": choices.get("lora_dropout", float)}
    )
    return replace(choices, lora=lora)


def _dropout(inputs: PlanInputs, configured: Lora) -> Choice:
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
    trainable = model.lora_parameters(choices.lora) if choices.lora else model.parameters - frozen
    if not frozen:
        return choices.choose(trainable_parameters=Choice(trainable))
    why = f"spec.method.freeze freezes {frozen:,} of {model.parameters:,}."
    choices = choices.choose(trainable_parameters=Choice(trainable, why))
    if not (freeze and freeze.embeddings and model.tied):
        return choices
    return choices.warn(
        "The model's output head is tied to its input embeddings, so spec.method.freeze.embeddings freezes both."
    )
