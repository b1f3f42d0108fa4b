"""A rule on a resource: compiled to CEL for its CRD, and evaluated in Python on the resource as a dict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hone.contract.expressions import Expression, Object


class Refusal(NamedTuple):
    """A rule that a resource breaks.

    Attributes:
        field: path of the field to change, with the list's index: `spec.reward.functions[0].pattern`.
        message: what is wrong with it.
        remedy: what to do.
    """

    field: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Rule:
    """A condition under which a resource is rejected: where `applies_if` holds.

    Attributes:
        path: the field to change; `[]` is each item of a list: `spec.reward.functions[].pattern`.
        applies_if: holds if the resource is rejected. Its paths are relative to `scope`.
        message: what is wrong, as the rest of a sentence that begins with the field.
        remedy: what to do, as a sentence.
        scope: path of the object that the rule is about, a part of `path`; "" is the whole resource.
        spec_only: whether it cannot be checked on a RunConfig, which lacks the field or always has a value for it.
    """

    path: str
    applies_if: Expression
    message: str
    remedy: str
    scope: str = "spec"
    spec_only: bool = False

    @property
    def text(self) -> str:
        """Message and remedy, as the API server returns them."""
        return f"{self.message}. {self.remedy}"

    @property
    def field_path(self) -> str:
        """The field to change below `scope`: `.pattern`, or "" where it is that object itself."""
        return self.path.removeprefix(self.scope) if self.scope else f".{self.path}"

    def cel(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations` in the schema of `scope`."""
        entry = {"rule": (~self.applies_if).cel(), "message": self.text}
        return {**entry, "fieldPath": self.field_path} if self.field_path else entry

    def refusals(self, resource: Object) -> Iterator[Refusal]:
        """Every place in the resource that breaks the rule."""
        for place, value in _places(resource, self.scope):
            if self.applies_if.holds(value):
                yield Refusal(f"{place}{self.field_path}".lstrip("."), self.message, self.remedy)


def refusals(rules: Sequence[Rule], resource: Object) -> list[Refusal]:
    """The rules that a resource breaks, in the order of the rules; [] if it is accepted."""
    return [refusal for rule in rules for refusal in rule.refusals(resource)]


def _places(resource: Object, scope: str) -> Iterator[tuple[str, Any]]:
    """The objects that a scope stands for, with the path of each."""
    places: list[tuple[str, Any]] = [("", resource)]
    for part in scope.split(".") if scope else []:
        key = part.removesuffix("[]")
        below = [(f"{path}.{key}".lstrip("."), node[key]) for path, node in places if key in node]
        if part.endswith("[]"):
            below = [(f"{path}[{index}]", item) for path, items in below for index, item in enumerate(items)]
        places = below
    yield from places
