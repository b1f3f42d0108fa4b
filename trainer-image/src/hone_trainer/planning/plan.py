"""The plan: every value that training needs, the user's own first, each with its reason."""

from collections.abc import Callable, Sequence

from hone.contract.plan import Plan
from hone_trainer.planning.checks import check_settings
from hone_trainer.planning.choices import (
    balance,
    generation,
    model,
    placement,
    precision,
    rows,
    schedule,
    scoring,
    search,
)
from hone_trainer.planning.choices.base import Choice, Choices
from hone_trainer.planning.inputs import PlanInputs

Choose = Callable[[PlanInputs, Choices], Choices]


def take_as_they_are(inputs: PlanInputs, choices: Choices) -> Choices:
    """What the plan only repeats."""
    return choices.choose(
        objective=Choice(inputs.objective.value),
        parameters=Choice(choices.model.parameters),
        world_size=Choice(inputs.topology.world_size),
    )


ORDER: Sequence[Choose] = (
    rows.check_scarce_data,
    balance.choose_balance,
    model.choose_head,
    model.choose_lora,
    model.choose_trainable,
    rows.choose_generation,
    rows.choose_batch,
    rows.choose_packing,
    rows.choose_beta,
    precision.choose_precision,
    placement.choose_placement,
    schedule.choose_accumulation,
    schedule.choose_micro_batch_tokens,
    schedule.choose_length_grouping,
    schedule.choose_steps,
    schedule.choose_sequence_length,
    generation.choose_engine,
    schedule.choose_saves,
    schedule.choose_evaluations,
    schedule.choose_rates,
    search.choose_search,
    placement.choose_probe,
    scoring.choose_scoring,
    take_as_they_are,
)
"""Each may read what those above it have chosen. Reasons and warnings are shown in this order."""


def make_plan(inputs: PlanInputs) -> Plan:
    """Choose every value of a run.

    Raises:
        BadInput: the settings contradict each other, the data are too few, or the model cannot fit.
    """
    check_settings(inputs.config)
    choices = Choices(inputs.model)
    for choose in ORDER:
        choices = choose(inputs, choices)
    return Plan.model_validate({**choices.values, "reasons": choices.reasons, "warnings": list(choices.warnings)})
