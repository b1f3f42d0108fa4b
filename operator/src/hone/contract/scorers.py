"""Scorers: metrics of answers by Python functions of the user's own."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.objects import ConfigMapKey
from hone.contract.rewards import RewardFunction

MAX_SCORERS = 4
DIRECTORY = "/mnt/scorers"
"""Where the pods of prepare and finish have their files, below the scorer's name."""
FILE = "scorer.py"


class Scorer(Model):
    """A function that gives a number for each answer, as reward functions do."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=32,
            pattern=r"^[A-Za-z][A-Za-z0-9]*$",
            description="Name of the metric in status and gate, such as politeness.",
        ),
    ]
    config_map: Annotated[ConfigMapKey, Field(description="A Python file in a ConfigMap.")]
    function: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Name of the function in the file. It gets prompts, completions and reference, lists of text, "
            "by keyword, and returns a list with a number for each completion; None where it does not apply.",
        ),
    ] = "score"
    higher_is_better: Annotated[bool, Field(description="Whether a larger number is better.")] = True

    @property
    def directory(self) -> str:
        """Where its file is mounted."""
        return f"{DIRECTORY}/{self.name}"

    def as_function(self) -> RewardFunction:
        """The function in the form in which functions of the user's are checked and called."""
        path = f"{self.directory}/{FILE}"
        source = f"{self.config_map.name}/{self.config_map.key}"
        return RewardFunction(mounted=path, file=path, source=source, function=self.function)
