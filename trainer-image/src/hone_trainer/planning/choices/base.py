"""A choice is a value and its reason; `Choices` are those so far, with the warnings. Neither ever changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pydantic.alias_generators import to_camel

from hone.contract.settings import Lora
from hone_trainer.models.facts import ModelFacts
from hone_trainer.planning.packing import UNPACKED, Packing
from hone_trainer.protocol.errors import clip

T = TypeVar("T")

SET_IN_THE_SPEC = "Set in the spec."
_MAX_WARNING = 512
"""Characters of a warning; the contract takes no longer one."""


@dataclass(frozen=True)
class Choice:
    """The value of a field of the plan, and why; no reason where there is nothing to explain."""

    value: object
    reason: str | None = None


def spec_or(requested: T | None, default: T, reason: str) -> Choice:
    """What the spec requests, else the default with its reason."""
    return Choice(default, reason) if requested is None else Choice(requested, SET_IN_THE_SPEC)


@dataclass(frozen=True)
class Choices:
    """What has been chosen so far.

    Attributes:
        model: the base model, with the head that the objective trains.
        fields: choices by the plan's field names, in the order in which they were made.
        warnings: what is allowed but probably not intended.
        lora: the adapter that is trained; None: the model's own weights are.
        rows_per_process: rows of an optimizer step that a process trains on: packed ones, or answers.
        packing: whether rows are packed.
    """

    model: ModelFacts
    fields: Mapping[str, Choice] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    lora: Lora | None = None
    rows_per_process: int = 0
    packing: Packing = UNPACKED

    def choose(self, **fields: Choice) -> "Choices":
        """These choices and more."""
        return replace(self, fields={**self.fields, **fields})

    def warn(self, *sentences: str) -> "Choices":
        """These choices with more warnings."""
        return replace(self, warnings=(*self.warnings, *(clip(sentence, _MAX_WARNING) for sentence in sentences)))

    def get(self, name: str, kind: type[T]) -> T:
        """A value chosen before.

        Raises:
            KeyError: the field comes later in the order.
            TypeError: the value is of another type.
        """
        value = self.fields[name].value
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {value!r}, no {kind.__name__}")
        return value

    @property
    def values(self) -> dict[str, object]:
        """The chosen values by the plan's field names."""
        return {name: choice.value for name, choice in self.fields.items()}

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons by the plan's field names in JSON, in the order of the choices."""
        return {to_camel(name): choice.reason for name, choice in self.fields.items() if choice.reason is not None}
