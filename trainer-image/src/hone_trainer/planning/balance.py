"""Whether rows of scarce classes weigh more, and why."""

from collections.abc import Callable
from typing import Any

from hone.contract.runconfig import RunConfig
from hone.contract.settings import Balance, Objective
from hone_trainer.data.classes import SKEWED, Classes, rated_weights

Pick = Callable[[str, Any, Any, str], Any]


def choose_balance(config: RunConfig, classes: Classes, pick: Pick) -> str:
    """The plan's `balance`.

    Args:
        config: what the user asked for.
        classes: with their training rows.
        pick: (field, what was asked for, default, why) -> value; notes the reason.
    """
    if config.objective is Objective.KTO:
        return _choose_rated_balance(config, classes, pick)
    skewed = classes.skew > SKEWED
    why = (
        f"The largest class has {classes.skew:.1f} times the rows of the smallest, {'more' if skewed else 'not more'} "
    )
    default = Balance.WEIGHT if skewed else Balance.NONE
    return pick("balance", config.data.balance, default, f"{why}than {SKEWED:g}.").value


def _choose_rated_balance(config: RunConfig, classes: Classes, pick: Pick) -> str:
    (bad, good), (for_good, for_bad) = classes.rows, rated_weights(classes)
    why = f"{good} good rows to {bad} bad ones"
    if for_good == for_bad:
        return pick("balance", config.data.balance, Balance.NONE, f"{why}: within 1 to 4/3.").value
    weighed = f"good ones weigh {for_good:.3g}" if for_good > 1 else f"bad ones weigh {for_bad:.3g}"
    return pick("balance", config.data.balance, Balance.WEIGHT, f"{why}, not within 1 to 4/3: {weighed}.").value
