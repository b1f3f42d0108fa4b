"""What GRPO and RLOO reward: built-in functions, and functions of the user's own.

The range of every built-in function is known in advance, so that users can choose weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.base import Model


class RewardName(StrEnum):
    """A built-in function."""

    EXACT_MATCH = "ExactMatch"
    CONTAINS = "Contains"
    F1 = "F1"
    REGEX = "Regex"


@dataclass(frozen=True)
class RewardFacts:
    """A built-in function.

    Attributes:
        gives: what it returns.
        compares: whether it needs a `reference` in every row.
        matches: whether it needs a `pattern`.
    """

    gives: str
    compares: bool = True
    matches: bool = False


REWARDS: Mapping[RewardName, RewardFacts] = {
    RewardName.EXACT_MATCH: RewardFacts(
        "1 if the answer equals one of the references, else 0; ignores case and spacing"
    ),
    RewardName.CONTAINS: RewardFacts(
        "1 if the answer contains one of the references, else 0; ignores case and spacing"
    ),
    RewardName.F1: RewardFacts("F1 score of the words of the answer and of the closest reference, from 0 to 1"),
    RewardName.REGEX: RewardFacts(
        "1 if the answer contains a match of `pattern`, a Python regular expression, else 0",
        compares=False,
        matches=True,
    ),
}

Weight = Annotated[float, Field(ge=-1000, le=1000)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]


class RewardFunction(Model):
    """A function in the RunConfig: a built-in one by `name`, or one of the user's own in `file`."""

    name: RewardName | None = None
    pattern: str | None = None
    mounted: str | None = None
    """Path in the prepare pod of a Python file, the value of a ConfigMap's key."""
    file: str | None = None
    """Path on the workspace of prepare's copy, which train and finish run: the ConfigMap may change later."""
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
    """The functions whose weighted sum is the reward of an answer."""

    functions: list[RewardFunction] = []
