"""What the next attempt does differently from the ones that failed: less memory, a lower rate."""

from collections.abc import Mapping

from hone.contract.exits import FailureClass
from hone.contract.runconfig import Attempt
from hone.core.finetunejob.policies.retry import key
from hone.core.finetunejob.run import TRAIN

DIVERGED_FACTOR = 0.5
"""What the planned rate is multiplied with after a divergence; a second one ends the run (`POLICIES`)."""


def attempt(step: str, number: int, failures: Mapping[str, int]) -> Attempt:
    """What the pods of an attempt get to know of it.

    Each attempt that ended out of memory has used up one level of the trainer's memory fallback; what a pod adjusted in
    place is no failure, and the trainer remembers it by itself. Only training has levels and a rate.

    Args:
        step: the step.
        number: number of the attempt within its step, from 1.
        failures: failures so far, by step and class (`status.failures`).
    """
    if step != TRAIN:
        return Attempt(number=number)
    return Attempt(
        number=number,
        memory_fallback_level=failures.get(key(step, FailureClass.OUT_OF_MEMORY), 0),
        learning_rate_factor=DIVERGED_FACTOR if failures.get(key(step, FailureClass.DIVERGED)) else 1.0,
    )
