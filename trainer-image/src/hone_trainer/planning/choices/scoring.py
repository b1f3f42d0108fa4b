"""How many GPUs score the model at the end, and whether it fits there."""

from hone.contract.settings import MAX_MINUTES
from hone_trainer.planning import needs
from hone_trainer.planning.choices.base import Choice, Choices, spec_or
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.scoring_terms import Scoring, per_device, row, weights
from hone_trainer.protocol.units import gib


def choose_scoring(inputs: PlanInputs, choices: Choices) -> Choices:
    """GPUs of the finish pod: the fewest that hold the model as it is served, at most those of a training pod."""
    scoring = _scoring(inputs, choices)
    if needs.answers_are_scored(inputs.objective):
        why = "For base and tuned model; the speed is measured then."
        choices = choices.choose(scoring_minutes=spec_or(inputs.config.evaluation.max_minutes, MAX_MINUTES, why))
    if not inputs.on_gpu:
        return _on_cpu(inputs, choices, scoring)
    limit, most = inputs.topology.memory_bytes, inputs.topology.gpus_per_node
    if limit is None:
        count, why = _by_training(inputs, choices, most)
    else:
        enough = next((n for n in range(1, most + 1) if per_device(scoring, n) <= limit), None)
        count, why = enough or most, "The fewest that hold the model in 16 bits." if enough else "All that a pod has."
    need = per_device(scoring, count)
    choices = choices.choose(scoring_gpus=Choice(count, why), scoring_memory_bytes=Choice(need, _why(scoring)))
    if limit is None or need <= limit:
        return choices
    return choices.warn(
        f"Scoring loads the model in 16 bits, {gib(weights(scoring))}, and needs about {gib(need)} on each GPU of the "
        f"pod ({most}), which has {gib(limit)}. What does not fit stays in host memory: scoring is slow, and may end "
        "as NotScored. The trained model is exported in any case. Raise spec.compute.gpusPerNode to avoid this."
    )


def _why(scoring: Scoring) -> str:
    return f"Weights {gib(weights(scoring))} in all, the longest row {gib(row(scoring))}."


def _by_training(inputs: PlanInputs, choices: Choices, most: int) -> tuple[int, str]:
    """Where the memory of a GPU is unknown: a GPU that trained with all weights in 16 bits can score them."""
    whole = choices.get("zero_stage", int) < 3 and not inputs.method.facts.quantized
    if whole or most == 1:
        return 1, "A GPU that trains the whole model can score it."
    return most, "Memory is unknown, and a training process holds only a part of the model, or holds it in 4 bits."


def _on_cpu(inputs: PlanInputs, choices: Choices, scoring: Scoring) -> Choices:
    need, limit = per_device(scoring, 1), inputs.topology.memory_bytes
    choices = choices.choose(scoring_memory_bytes=Choice(need, _why(scoring)))
    # The pod that scores has the memory of a training pod.
    if limit is None or need <= limit * inputs.topology.processes_per_node:
        return choices
    return choices.warn(
        f"Scoring needs about {gib(need)}, more than a pod has, and may end as NotScored. The trained model is "
        "exported in any case. Raise spec.compute.resources.limits.memory to avoid this."
    )


def _scoring(inputs: PlanInputs, choices: Choices) -> Scoring:
    answer = 0
    if needs.answers_are_scored(inputs.objective):
        planned = choices.values.get("max_completion_length")
        answer = planned if isinstance(planned, int) else inputs.config.evaluation.max_new_tokens
    return Scoring(
        model=choices.model,
        adapter=choices.get("trainable_parameters", int) if choices.lora else 0,
        teacher=inputs.teacher_parameters,
        on_gpu=inputs.on_gpu,
        length=inputs.sequence_length,
        answer=answer,
    )
