"""Differences between YAML documents: what they say, and that they give back each document to the byte."""

import copy
import itertools
from typing import Any

import pytest

from tests.golden.cases import expected, inputs, whole_cases
from tests.golden.differences import difference, patched, same

META = {"name": "a", "labels": {"one": "1", "two": "2"}}
X, Y = {"name": "x", "args": [1, 2]}, {"name": "y"}
POD = {"metadata": META, "containers": [X, Y]}

DIFFERENCES: dict[str, tuple[Any, Any]] = {
    "a value": ({**POD, "metadata": {**META, "name": "b"}}, {"metadata": {"name": "b"}}),
    "a removed key": ({**POD, "metadata": {"name": "a"}}, {"metadata": {"labels": None}}),
    "an item's value": (
        {**POD, "containers": [{"name": "x", "args": [2]}, Y]},
        {"containers": [{"name": "x", "args": [2]}]},
    ),
    "a removed item": ({**POD, "containers": [X]}, {"containers": [{"name": "y", "$patch": "delete"}]}),
    "an empty list": ({**POD, "containers": []}, {"containers": []}),
    "a new last key": ({**POD, "node": "n"}, {"node": "n"}),
    "a new key between": ({"metadata": META, "node": "n", "containers": [X, Y]}, {"metadata": {}, "node": "n"}),
    "another order": (
        {"containers": [X, Y], "metadata": META},
        {"$patch": "replace", "containers": [X, Y], "metadata": META},
    ),
}


@pytest.mark.parametrize(("new", "patch"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_states_only_what_differs(new: Any, patch: Any) -> None:
    assert same(difference(POD, new), patch)
    assert same(patched(POD, patch), new)


@pytest.mark.parametrize(
    ("base", "new"),
    [
        ({"a": 1}, {"a": None}),
        ({"a": {"b": 1}}, {"a": {}}),
        ([{"name": "x"}, {"name": "x"}], [{"name": "x"}]),
        ([{"name": "x"}], [{"name": "y"}, {"name": "x"}]),
        ({"a": [1]}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
    ],
)
def test_what_cannot_be_merged_is_replaced(base: Any, new: Any) -> None:
    assert same(patched(base, difference(base, new)), new)


def test_patching_leaves_the_base_as_it_is() -> None:
    before = copy.deepcopy(POD)
    patched(POD, {"metadata": {"labels": {"one": None}}, "containers": [{"name": "x", "$patch": "delete"}]})
    assert before == POD


@pytest.mark.slow
def test_any_whole_case_can_be_written_as_its_difference_from_any_other() -> None:
    whole = set(whole_cases())
    documents = [{**case._asdict(), "plan": expected(name)} for name, case in inputs() if name in whole]
    for base, new in itertools.permutations(documents, 2):
        assert same(patched(base, difference(base, new)), new)
