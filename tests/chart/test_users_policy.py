"""The allow-lists for users: the operator reads those of the values, and the policy is rendered where it is wanted."""

import pytest

from hone.core.allowlists import ANYTHING, AllowLists
from hone.runtime.options import from_environment
from tests.chart.conftest import Manifest, Render, env_of, of_kind
from tests.chart.test_operator_policy import BINDING, POLICY

LISTS = {
    "priorityClasses": ["low", "batch-*"],
    "tolerations": ["gpu"],
    "annotations": ["a.example.com/*"],
    "images": [],
    "schedulers": ["default-scheduler"],
}


def values(**more: object) -> Manifest:
    """Values with these lists and the policy."""
    return {"admissionPolicies": {"operator": {"enabled": False}, "users": {"enabled": True, **LISTS}}, **more}


def test_the_operator_reads_the_lists_of_the_values(render: Render) -> None:
    lists = from_environment(env_of(render(values()))).settings.allow_lists
    assert lists == AllowLists(("low", "batch-*"), ("gpu",), ("a.example.com/*",), (), ("default-scheduler",))
    assert from_environment(env_of(render())).settings.allow_lists == ANYTHING


def test_there_is_a_policy_only_where_it_is_wanted(render: Render) -> None:
    assert [policy["metadata"]["name"] for policy in of_kind(render(), POLICY)] == ["hone-operator.hone-system"]
    assert [each["metadata"]["name"] for each in of_kind(render(values()), POLICY, BINDING)] == [
        "hone-users.hone-system"
    ] * 2


@pytest.mark.parametrize("namespaces", [[], ["team-a", "team-b"]])
def test_the_policy_is_for_the_namespaces_that_the_operator_serves(namespaces: list[str], render: Render) -> None:
    (policy,) = of_kind(render(values(watchNamespaces=namespaces)), POLICY)
    selector = policy["spec"]["matchConstraints"].get("namespaceSelector")
    names = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}
    assert selector == ({"matchExpressions": [names]} if namespaces else None)
