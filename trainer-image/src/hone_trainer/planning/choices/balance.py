"""Whether rows of scarce classes weigh more."""

from hone.contract.settings import Balance
from hone_trainer.data.classes import SKEWED, Classes, rated_weights
from hone_trainer.planning import needs
from hone_trainer.planning.choices.base import Choices, spec_or
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.protocol.errors import clip

SCARCE = 10
"""Training rows of a class, below which a model learns their words rather than the class."""
SHOWN, NAMES = 3, 120
"""Classes, and characters of their names, that a warning shows."""


def choose_balance(inputs: PlanInputs, choices: Choices) -> Choices:
    """By how unequal the classes are; none where rows have no classes."""
    if not inputs.classes:
        return choices
    by_size = _of_ratings if needs.learns_from_ratings(inputs.objective) else _of_classes
    default, why = by_size(inputs.classes)
    configured = inputs.config.data.balance
    choices = choices.warn(*of_scarce_classes(inputs.classes))
    return choices.choose(balance=spec_or(configured and configured.value, default.value, why))


def of_scarce_classes(classes: Classes) -> list[str]:
    """A warning where the rows of a class are too few, however much they weigh."""
    scarce = [name for name, rows in zip(classes.names, classes.rows, strict=True) if rows < SCARCE]
    if not scarce:
        return []
    shown = f"{clip(', '.join(scarce[:SHOWN]), NAMES)}{' …' if len(scarce) > SHOWN else ''}"
    return [
        f"Classes out of balance: {len(scarce)} of {len(classes.names)} have fewer than {SCARCE} training rows "
        f"({shown}), and the largest has {max(classes.rows)}. Weights do not replace rows. What may still work: to add "
        "rows of these classes, or to join those that need not be told apart."
    ]


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
