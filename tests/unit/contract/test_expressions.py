"""Expressions over fields that are there, absent, false, or of a parent that is absent; both meanings."""

import pytest

from hone.contract.expressions import (
    ArgumentName,
    Compare,
    Count,
    Expression,
    HasPart,
    IsSet,
    Matches,
    OneOf,
    Sum,
    Value,
    literal,
)

OBJECT = {"a": {"on": False, "size": 0.0, "path": "x/../y"}, "kind": "B", "flag": "--no-a_b.c=d.e"}
HOLDS = [
    (IsSet("a"), True),
    (IsSet("a.on"), True),
    (IsSet("a.off"), False),
    (IsSet("c.on"), False),
    (~IsSet("c.on"), True),
    (Compare(Value("a.on"), "==", False), True),
    (Compare(Value("a.off"), "==", False), False),
    (Compare(Value("a.off"), "!=", False), False),
    (Compare(Value("a.off", True), "!=", False), True),
    (Compare(Value("a.size"), "<=", 0.0), True),
    (Compare(Value("a.size"), "<", Value("a.most", 1.0)), True),
    (Compare(Value("a.size"), "<", Value("a.most")), False),
    (Compare(Sum(Value("a.size"), Value("a.most", 1.0)), ">=", 1.0), True),
    (Compare(Sum(Value("a.size"), Value("a.most")), ">=", 0.0), False),
    (Compare(Count(("kind", "c.on", "a.on")), "==", 2), True),
    (OneOf(Value("kind"), ("A", "B")), True),
    (OneOf(Value("sort"), ("A", "B")), False),
    (OneOf(Value("sort", "A"), ("A", "B")), True),
    (HasPart(Value("a.path"), "/", ".."), True),
    (HasPart(Value("kind"), "/", ".."), False),
    (HasPart(Value("c.path"), "/", ".."), False),
    (Matches(Value("kind"), "A|B"), True),
    (Matches(Value("a.path"), "x"), False),
    (Matches(Value("c.path"), ".*"), False),
    (OneOf(ArgumentName(Value("flag")), ("--a-b",)), True),
    (OneOf(ArgumentName(Value("kind")), ("--a-b",)), False),
    (OneOf(ArgumentName(Value("c.flag")), ("--a-b",)), False),
    (IsSet("a") & IsSet("c"), False),
    (IsSet("a") | IsSet("c"), True),
]
CEL = [
    (IsSet("a.b"), "(has(self.a) && has(self.a.b))"),
    (~~IsSet("a"), "(has(self.a))"),
    (Compare(Value("a"), ">", 0.0), "(has(self.a) && self.a > 0.0)"),
    (Compare(Value("a", True), "==", True), "((has(self.a) ? self.a : true) == true)"),
    (OneOf(Value("a"), ("A", "B")), "(has(self.a) && self.a in ['A', 'B'])"),
    (Matches(Value("a"), r"x\..*|y"), "(has(self.a) && self.a.matches('^(?:x\\\\..*|y)$'))"),
    (Matches(Value(""), "x"), "(self.matches('^(?:x)$'))"),
    (OneOf(Value(""), ("A",)), "(self in ['A'])"),
    (
        OneOf(ArgumentName(Value("a")), ("--a",)),
        "(has(self.a) && self.a.split('=')[0].split('.')[0].replace('_', '-').replace('--no-', '--') in ['--a'])",
    ),
    (~(IsSet("a") | IsSet("b")), "!((has(self.a)) || (has(self.b)))"),
    (Compare(Count(("a", "b")), "!=", 1), "(((has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0)) != 1)"),
]


@pytest.mark.parametrize(("expression", "expected"), HOLDS)
def test_holds_in_python(expression: Expression, expected: bool) -> None:
    assert expression.holds(OBJECT) is expected


@pytest.mark.parametrize(("expression", "text"), CEL)
def test_is_written_in_cel(expression: Expression, text: str) -> None:
    assert expression.cel() == text


def test_an_empty_path_is_the_object_itself() -> None:
    assert Matches(Value(""), "a.*").holds("ab")  # type: ignore[arg-type]
    assert not OneOf(ArgumentName(Value("")), ("-",)).holds("")  # type: ignore[arg-type]


def test_a_text_is_quoted() -> None:
    assert literal("it's a \\") == "'it\\'s a \\\\'"


def test_every_field_is_listed() -> None:
    expression = ~(Compare(Sum(Value("a"), Value("b")), ">", Value("c", 1)) | OneOf(Value("d"), (1,))) & IsSet("e")
    assert [value.path for value in expression.values()] == ["a", "b", "c", "d", "e"]
