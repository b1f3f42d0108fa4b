"""Whether rows of scarce classes weigh more."""

from hone.contract.settings import Balance
from hone_trainer.data.classes import SKEWED, Classes, rated_weights
from hone_trainer.planning import needs
from hone_trainer.planning.choices.base import Choices, spec_or
from hone_trainer.planning.inputs import PlanInputs


def choose_balance(inputs: PlanInputs, choices: Choices) -> Choices:
    """By how unequal the classes are; none where rows have no classes."""
    if not inputs.classes:
        return choices
    by_size = _of_ratings if needs.learns_from_ratings(inputs.objective) else _of_classes
    default, why = by_size(inputs.classes)
    configured = inputs.config.data.balance
    return choices.choose(balance=spec_or(configured and configured.value, default.value, why))


def _of_classes(classes: Classes) -> tuple[Balance, str]:
    skewed = classes.skew > SKEWED
    why = (
        f"The largest class has {classes.skew:.1f} times the rows of the smallest, {'more' if skewed else 'not more'} "
    )
    return Balance.WEIGHT if skewed else Balance.NONE, f"{why}than {SKEWED:g}."


def _of_ratings(classes: Classes) -> tuple[Balance, str]:
    (bad, good), (for_good, for_bad) = classes.rows, rated_weights(classes)
    why = f"{good} good to {bad} bad rows"
    if for_good == for_bad:
        return Balance.NONE, f"{why}: ratio in 1 to 4/3."
    weighed = f"good ones weigh {for_good:.3g}" if for_good > 1 else f"bad ones weigh {for_bad:.3g}"
    return Balance.WEIGHT, f"{why}, ratio not in 1 to 4/3: {weighed}."
