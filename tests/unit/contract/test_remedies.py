"""What a rule advises is itself accepted: each change that a remedy names, made on specs that the rule refuses."""

import copy
import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from hone.contract.rules import Rule, refusals
from hone.contract.rules import finetunejob as rules
from tests.random_specs import FIELDS, SCHEMAS, Resource, change_for, examples

KIND = "FineTuneJob"
TRIED = 2000
_VALUE = r"[A-Z0-9][\w-]*"
_VALUES = rf"(?P<values>{_VALUE}(?:, {_VALUE})*(?: or {_VALUE})?)"
_SET = re.compile(rf"[Ss]et (?P<field>[\w.]+) to {_VALUES}\b")
_USE = re.compile(rf"[Uu]se {_VALUES}\b")
_REMOVE = re.compile(r"[Rr]emove it\b")
_REMOVED = object()

Change = tuple[str, Any]
"""A field's path, and its value or `_REMOVED`."""


def advised(rule: Rule) -> Iterator[Change]:
    """The changes that a remedy names; what it says in other ways is left out."""
    if "[]" in rule.path:
        return
    for clause in re.split(r", or |, and ", rule.remedy.rstrip(".")):
        if match := _SET.search(clause):
            path = _path(rule, match["field"])
        elif match := _USE.match(clause):
            path = rule.path
        else:
            if _REMOVE.match(clause):
                yield rule.path, _REMOVED
            continue
        yield from ((path, _typed(path, value)) for value in re.split(r", | or ", match["values"]))


def _path(rule: Rule, field: str) -> str:
    """The path of a field that a remedy names: whole, next to the rule's own, or by a name that only one field has."""
    siblings = f"{rule.path.rpartition('.')[0]}.{field}"
    candidates = [rule.path if field == "it" else field, f"spec.{field}", siblings]
    candidates += [path for path in FIELDS[KIND] if path.endswith(f".{field}")]
    return next(path for path in candidates if path in FIELDS[KIND])


def _typed(path: str, value: str) -> Any:
    schema = SCHEMAS[KIND]
    for part in path.split("."):
        schema = schema["properties"][part]
    if schema["type"] == "integer":
        return int(value)
    assert "enum" not in schema or value in schema["enum"], f"{path} cannot be {value}"
    return value


def changed(resource: Resource, path: str, value: Any) -> Resource:
    """A copy of a resource with one field changed."""
    node = result = copy.deepcopy(resource)
    *parents, last = path.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    if value is _REMOVED:
        node.pop(last, None)
    else:
        node[last] = value
    return result


def refused_by(rule: Rule) -> Iterator[Resource]:
    """Random resources that this rule refuses."""
    random, bases = Random(1), [example for example in examples() if example["kind"] == KIND]
    for _ in range(TRIED):
        resource = copy.deepcopy(random.choice(bases))
        change_for(random, resource, rule)
        if rule.message in _messages(resource):
            yield resource


def _messages(resource: Resource) -> set[str]:
    return {refusal.message for refusal in refusals(rules.RULES, resource)}


ADVICE = [
    pytest.param(rule, change, id=f"{rule.path}, {change[0]}: {'removed' if change[1] is _REMOVED else change[1]}")
    for rule in rules.RULES
    for change in advised(rule)
]


@pytest.mark.parametrize(("rule", "change"), ADVICE)
def test_what_a_remedy_names_is_accepted(rule: Rule, change: Change) -> None:
    # What else is wrong with a random spec may stay so.
    assert any(
        _messages(changed(resource, *change)) <= _messages(resource) - {rule.message} for resource in refused_by(rule)
    ), rule.text


def test_most_remedies_name_a_change() -> None:
    named = [rule for rule in rules.RULES if any(advised(rule))]
    assert len(named) > len([rule for rule in rules.RULES if "[]" not in rule.path]) / 3
    assert ("spec.method.type", "LoRA") in {change.values[1] for change in ADVICE}
