"""What GRPO and RLOO reward: functions from a list, and functions of the user's own.

Every figure of a function of the list is known beforehand to lie in its range, so that weights can be chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.base import Model


class RewardName(StrEnum):
    """A function that Hone has."""

    EXACT_MATCH = "ExactMatch"
    CONTAINS = "Contains"
    F1 = "F1"
    REGEX = "Regex"


@dataclass(frozen=True)
class RewardFacts:
    """What is to know of such a function.

    Attributes:
        gives: what it is 1 for, and which figures it has.
        compares: whether it needs a `reference` in every row.
        matches: whether it needs a `pattern`.
    """

    gives: str
    compares: bool = True
    matches: bool = False


REWARDS: Mapping[RewardName, RewardFacts] = {
    RewardName.EXACT_MATCH: RewardFacts("1 where the answer is one of the references, else 0; case and spacing aside"),
    RewardName.CONTAINS: RewardFacts("1 where the answer holds one of the references, else 0; case and spacing aside"),
    RewardName.F1: RewardFacts("0 to 1: F1 of the answer's words against those of the nearest reference"),
    RewardName.REGEX: RewardFacts(
        "1 where the answer holds a match of `pattern`, a Python regular expression, else 0",
        compares=False,
        matches=True,
    ),
}

Weight = Annotated[float, Field(ge=-1000, le=1000)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]


class RewardFunction(Model):
    """A function as the pods are told of it: one of the list by `name`, else one of the user's own in `file`."""

    name: RewardName | None = None
    pattern: str | None = None
    mounted: str | None = None
    """Path in the prepare pod of a Python file, the value of a ConfigMap's key."""
    file: str | None = None
    """Path on the workspace of prepare's copy, which train and finish run: a ConfigMap may change meanwhile."""
    source: str | None = None
    """The ConfigMap and its key, for messages: `rewards/brevity.py`."""
    function: str = "reward"
    """The function's name in the file."""
    weight: float = 1.0

    @property
    def label(self) -> str:
        """What it is called in scores and messages."""
        return self.name.value if self.name else f"{self.source}:{self.function}"


class Rewards(Model):
    """What an answer's reward is the weighted sum of."""

    functions: list[RewardFunction] = []
