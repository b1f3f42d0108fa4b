"""Boolean expressions over the fields of an object, each with two meanings: CEL text, and Python over a dict.

A path names a field below the object that a rule is about: `hyperparameters.beta`; "" is the object itself, such as an
item of a list of texts. A field that is absent, or whose parent is, has no value; `Value` may give it a default, since
specs are stored without defaults.
"""

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Scalar = str | bool | int | float
Object = Mapping[str, Any]

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def lookup(value: Object, path: str) -> Any:
    """The field's value; None where it or a parent is absent."""
    node: Any = value
    for key in path.split(".") if path else []:
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def literal(value: Scalar | Sequence[Scalar]) -> str:
    """A constant in CEL, or a list of them."""
    if isinstance(value, str):
        return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, Sequence):
        return f"[{', '.join(literal(item) for item in value)}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _is_set(path: str) -> str:
    """CEL that is true if a field and all of its parents are set."""
    parts = path.split(".")
    return " && ".join(f"has(self.{'.'.join(parts[: end + 1])})" for end in range(len(parts)))


class Expression(ABC):
    """A condition on an object."""

    @abstractmethod
    def cel(self) -> str:
        """The condition in CEL, over `self`, in parentheses where it has several parts."""

    @abstractmethod
    def holds(self, value: Object) -> bool:
        """Whether the object meets the condition."""

    @abstractmethod
    def values(self) -> Iterator["Value"]:
        """Every field that it reads."""

    def __and__(self, other: "Expression") -> "Expression":
        return _Both(self, other, "&&")

    def __or__(self, other: "Expression") -> "Expression":
        return _Both(self, other, "||")

    def __invert__(self) -> "Expression":
        return _Not(self)


class Operand(ABC):
    """What a comparison compares."""

    @abstractmethod
    def cel(self) -> str:
        """The operand in CEL."""

    @abstractmethod
    def of(self, value: Object) -> Any:
        """The operand for an object; None where it has no value."""

    @abstractmethod
    def values(self) -> Iterator["Value"]:
        """Every field that it reads."""

    def needs(self) -> str | None:
        """CEL for the fields that must be set for the operand to have a value; None: nothing."""
        needed = [_is_set(value.path) for value in self.values() if value.default is None and value.path]
        return " && ".join(needed) or None


@dataclass(frozen=True)
class Value(Operand):
    """A field's value.

    Attributes:
        path: of the field.
        default: its value if the field is absent; None: no value.
    """

    path: str
    default: Scalar | None = None

    def cel(self) -> str:
        field = f"self.{self.path}" if self.path else "self"
        return field if self.default is None else f"({_is_set(self.path)} ? {field} : {literal(self.default)})"

    def of(self, value: Object) -> Any:
        field = lookup(value, self.path)
        return self.default if field is None else field

    def values(self) -> Iterator["Value"]:
        yield self


@dataclass(frozen=True)
class Count(Operand):
    """The number of some fields that are set."""

    paths: tuple[str, ...]

    def cel(self) -> str:
        return "(" + " + ".join(f"({_is_set(path)} ? 1 : 0)" for path in self.paths) + ")"

    def of(self, value: Object) -> int:
        return sum(lookup(value, path) is not None for path in self.paths)

    def values(self) -> Iterator[Value]:
        yield from (Value(path) for path in self.paths)

    def needs(self) -> None:
        return None


@dataclass(frozen=True)
class Sum(Operand):
    """The sum of two fields."""

    left: Value
    right: Value

    def cel(self) -> str:
        return f"{self.left.cel()} + {self.right.cel()}"

    def of(self, value: Object) -> Any:
        left, right = self.left.of(value), self.right.of(value)
        return None if left is None or right is None else left + right

    def values(self) -> Iterator[Value]:
        yield from (self.left, self.right)


@dataclass(frozen=True)
class ArgumentName(Operand):
    """The name of a command-line argument as vLLM reads it: `--a_b.c=d` and `--no-a-b` are `--a-b`."""

    argument: Value

    def cel(self) -> str:
        return f"{self.argument.cel()}.split('=')[0].split('.')[0].replace('_', '-').replace('--no-', '--')"

    def of(self, value: Object) -> Any:
        text = self.argument.of(value)
        return text and text.split("=")[0].split(".")[0].replace("_", "-").replace("--no-", "--")

    def values(self) -> Iterator[Value]:
        yield self.argument


def _guarded(cel: str, *operands: Operand) -> str:
    """A condition that is false, rather than an error, where an operand has no value."""
    return f"({' && '.join([*filter(None, (operand.needs() for operand in operands)), cel])})"


@dataclass(frozen=True)
class IsSet(Expression):
    """Whether a field is set."""

    path: str

    def cel(self) -> str:
        return f"({_is_set(self.path)})"

    def holds(self, value: Object) -> bool:
        return lookup(value, self.path) is not None

    def values(self) -> Iterator[Value]:
        yield Value(self.path)


@dataclass(frozen=True)
class Compare(Expression):
    """Compares an operand with another or with a constant; false where one has no value.

    CEL does not mix types: a number with a fraction (`type: number` in the schema) needs a constant such as 0.0.
    """

    left: Operand
    comparison: str
    right: Operand | Scalar

    def cel(self) -> str:
        right = self.right.cel() if isinstance(self.right, Operand) else literal(self.right)
        operands = [operand for operand in (self.left, self.right) if isinstance(operand, Operand)]
        return _guarded(f"{self.left.cel()} {self.comparison} {right}", *operands)

    def holds(self, value: Object) -> bool:
        left = self.left.of(value)
        right = self.right.of(value) if isinstance(self.right, Operand) else self.right
        return left is not None and right is not None and _COMPARISONS[self.comparison](left, right)

    def values(self) -> Iterator[Value]:
        yield from self.left.values()
        if isinstance(self.right, Operand):
            yield from self.right.values()


@dataclass(frozen=True)
class OneOf(Expression):
    """Whether an operand has one of some values; false where it has none."""

    value: Operand
    options: tuple[Scalar, ...]

    def cel(self) -> str:
        return _guarded(f"{self.value.cel()} in {literal(self.options)}", self.value)

    def holds(self, value: Object) -> bool:
        return self.value.of(value) in self.options

    def values(self) -> Iterator[Value]:
        yield from self.value.values()


@dataclass(frozen=True)
class HasPart(Expression):
    """Whether a text has a part between separators; false where the field has no value."""

    value: Value
    separator: str
    part: str

    def cel(self) -> str:
        parts = f"{self.value.cel()}.split({literal(self.separator)})"
        return _guarded(f"{parts}.exists(part, part == {literal(self.part)})", self.value)

    def holds(self, value: Object) -> bool:
        text = self.value.of(value)
        return text is not None and self.part in text.split(self.separator)

    def values(self) -> Iterator[Value]:
        yield self.value


@dataclass(frozen=True)
class Matches(Expression):
    """Whether the whole of a text matches a regular expression; false where the field has no value.

    The expression must mean the same in RE2, which CEL uses, and in Python.
    """

    value: Value
    pattern: str

    def cel(self) -> str:
        return _guarded(f"{self.value.cel()}.matches({literal(f'^(?:{self.pattern})$')})", self.value)

    def holds(self, value: Object) -> bool:
        text = self.value.of(value)
        return text is not None and re.fullmatch(self.pattern, text) is not None

    def values(self) -> Iterator["Value"]:
        yield self.value


@dataclass(frozen=True)
class EveryKey(Expression):
    """Whether each key of a map matches a regular expression as a whole; false where the field has no value."""

    map: Value
    pattern: str

    def cel(self) -> str:
        return _guarded(f"{self.map.cel()}.all(key, key.matches({literal(f'^(?:{self.pattern})$')}))", self.map)

    def holds(self, value: Object) -> bool:
        entries = self.map.of(value)
        return entries is not None and all(re.fullmatch(self.pattern, key) for key in entries)

    def values(self) -> Iterator["Value"]:
        yield self.map


@dataclass(frozen=True)
class EveryValue(Expression):
    """Whether each value of a map of texts matches a regular expression as a whole; false where there is no map."""

    map: Value
    pattern: str

    def cel(self) -> str:
        entries = self.map.cel()
        every = f"{entries}.all(key, {entries}[key].matches({literal(f'^(?:{self.pattern})$')}))"
        return _guarded(every, self.map)

    def holds(self, value: Object) -> bool:
        entries = self.map.of(value)
        return entries is not None and all(re.fullmatch(self.pattern, each) for each in entries.values())

    def values(self) -> Iterator["Value"]:
        yield self.map


@dataclass(frozen=True)
class _Both(Expression):
    left: Expression
    right: Expression
    sign: str

    def cel(self) -> str:
        return f"({self.left.cel()} {self.sign} {self.right.cel()})"

    def holds(self, value: Object) -> bool:
        if self.sign == "&&":
            return self.left.holds(value) and self.right.holds(value)
        return self.left.holds(value) or self.right.holds(value)

    def values(self) -> Iterator[Value]:
        yield from self.left.values()
        yield from self.right.values()


@dataclass(frozen=True)
class _Not(Expression):
    part: Expression

    def cel(self) -> str:
        return f"!{self.part.cel()}"

    def holds(self, value: Object) -> bool:
        return not self.part.holds(value)

    def __invert__(self) -> Expression:
        return self.part

    def values(self) -> Iterator[Value]:
        yield from self.part.values()
