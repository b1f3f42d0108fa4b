"""The operator's rights: enough for what it does, nothing that would let it read secrets or enter pods."""

import functools

import pytest

from hone.api import GROUP
from hone.core.children import Write
from hone.core.kinds import KINDS, WATCHED_CHILDREN
from hone.core.names import plural
from tests.chart.conftest import Manifest, Render, of_kind
from tests.golden.cases import expected, inputs

FORBIDDEN = ("pods/exec", "pods/log", "pods/attach", "pods/portforward", "serviceaccounts", "*")
ESCALATING = ("*", "escalate", "bind", "impersonate", "deletecollection")


def operator_rules(manifests: list[Manifest]) -> list[Manifest]:
    """All rules of the roles that are bound to the operator's ServiceAccount."""
    bindings = of_kind(manifests, "RoleBinding", "ClusterRoleBinding")
    bound = {(b["roleRef"]["kind"], b["roleRef"]["name"], b["metadata"].get("namespace")) for b in bindings}
    roles = {
        (role["kind"], role["metadata"]["name"], role["metadata"].get("namespace")): role["rules"]
        for role in of_kind(manifests, "Role", "ClusterRole")
    }
    return [rule for key in bound for rule in roles[key]]


SCOPES = {"the whole cluster": {}, "two namespaces": {"watchNamespaces": ["team-a", "team-b"]}}


@pytest.mark.parametrize("values", SCOPES.values(), ids=SCOPES)
def test_grants_nothing_that_reads_secrets_or_enters_pods(values: Manifest, render: Render) -> None:
    rules = operator_rules(render(values))
    assert rules
    for rule in rules:
        assert not set(rule["resources"]) & set(FORBIDDEN), rule
        assert "secrets" not in rule["resources"] or (rule["resources"], rule["verbs"]) == (["secrets"], ["create"]), (
            rule
        )
        assert not set(rule["verbs"]) & set(ESCALATING), rule
        assert "rbac.authorization.k8s.io" not in rule["apiGroups"], rule
        assert "*" not in rule["apiGroups"], rule
        assert "nonResourceURLs" not in rule, rule


def test_never_writes_a_spec_or_deletes_a_resource_of_a_user(render: Render) -> None:
    verbs = {
        verb
        for rule in operator_rules(render())
        if set(rule["resources"]) & {"finetunejobs", "modeldeployments"}
        for verb in rule["verbs"]
    }
    assert verbs == {"get", "list", "watch"}


@pytest.mark.parametrize("scope", SCOPES)
def test_of_nodes_it_lists_labels_and_in_namespaces_not_even_those(scope: str, render: Render) -> None:
    rules = [rule for rule in operator_rules(render(SCOPES[scope])) if "nodes" in rule["resources"]]
    assert [rule["verbs"] for rule in rules] == ([["list"]] if scope == "the whole cluster" else [])


def test_with_namespaces_it_has_no_right_outside_of_them(render: Render) -> None:
    manifests = render({"watchNamespaces": ["team-a", "team-b", "team-a"]})
    assert of_kind(manifests, "ClusterRoleBinding") == []
    namespaces = ["team-a", "team-b", "hone-system"]
    assert [b["metadata"]["namespace"] for b in of_kind(manifests, "RoleBinding")] == namespaces
    assert [r["metadata"]["namespace"] for r in of_kind(manifests, "Role")] == namespaces


@pytest.mark.parametrize("values", SCOPES.values(), ids=SCOPES)
def test_it_writes_leases_in_its_own_namespace_and_no_other_than_its_own(values: Manifest, render: Render) -> None:
    roles = [r for r in of_kind(render(values), "Role", "ClusterRole") if "leases" in str(r["rules"])]
    (role,) = roles
    assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "hone-system")
    assert [(rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"]] == [
        (None, ["create"]),
        (["hone"], ["get", "patch"]),
    ]


def test_with_namespaces_and_without_crds_and_policy_nothing_is_cluster_wide(render: Render) -> None:
    without_policy = {"admissionPolicies": {"operator": {"enabled": False}}}
    manifests = render({"watchNamespaces": ["team-a"], "crds": {"enabled": False}, **without_policy})
    cluster_wide = [m["kind"] for m in manifests if "namespace" not in m["metadata"]]
    assert cluster_wide == []


def test_the_binding_is_to_the_account_that_the_pod_runs_as(render: Render) -> None:
    manifests = render({"serviceAccount": {"name": "sharp"}})
    (binding,) = of_kind(manifests, "ClusterRoleBinding")
    (deployment,) = of_kind(manifests, "Deployment")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "sharp", "namespace": "hone-system"}]
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == "sharp"


def test_no_role_with_rights_for_users_is_bound_by_the_chart(render: Render) -> None:
    manifests = render()
    bound = {binding["roleRef"]["name"] for binding in of_kind(manifests, "ClusterRoleBinding")}
    aggregated = {
        role["metadata"]["name"]
        for role in of_kind(manifests, "ClusterRole")
        if any("aggregate-to" in label for label in role["metadata"]["labels"])
    }
    assert aggregated == {"hone-view", "hone-edit"}
    assert not bound & aggregated


@pytest.mark.parametrize("role", ["view", "edit"])
def test_each_role_for_users_is_added_to_the_clusters_own_unless_switched_off(role: str, render: Render) -> None:
    off = render({"userRoles": {f"aggregateTo{role.title()}": False}})
    for manifests, expected_roles in ((render(), {"view", "edit"}), (off, {"view", "edit"} - {role})):
        roles = [each for each in of_kind(manifests, "ClusterRole") if each["metadata"]["name"] != "hone"]
        assert {each["metadata"]["name"] for each in roles} == {"hone-view", "hone-edit"}
        labels = [label for each in roles for label in each["metadata"]["labels"]]
        aggregated = {label.rpartition("-")[2] for label in labels if "aggregate-to-" in label}
        assert aggregated == expected_roles


@functools.cache
def calls() -> set[tuple[str, str, str]]:
    """(group, resource, verb) of every call that the operator makes for its children and in the golden cases."""
    requests = {("events.k8s.io", "events", verb) for verb in ("create", "get", "patch")}
    requests |= {("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "patch")}  # Leader election.
    for kind in KINDS.values():
        requests |= {(GROUP, kind.plural, verb) for verb in ("get", "list", "watch")}
        requests.add((GROUP, f"{kind.plural}/status", "update"))
        for child in kind.children:
            verbs = ("get", "create", "patch") if child.write == Write.APPLY else ("get", "create")
            requests |= {(group_of(child.api_version), plural(child.kind), verb) for verb in verbs}
    for watched in WATCHED_CHILDREN:
        requests |= {(group_of(watched.api_version), watched.plural, verb) for verb in ("list", "watch")}
    for name, case in inputs():
        plan = expected(name)
        applied = [entry["body"] for entry in plan.get("apply", [])]
        requests |= {(*named(obj), "get") for obj in case.cluster.get("objects") or []}
        requests |= {(*named(obj), "create") for obj in (*plan.get("create", []), *applied)}
        requests |= {(*named(obj), "patch") for obj in applied}
        for entry in plan.get("delete", []):
            ref = entry["ref"]
            requests.add((*named({"apiVersion": ref["api_version"], "kind": ref["kind"]}), "delete"))
    return requests


def group_of(api_version: str) -> str:
    """The group of an API version; empty for `v1`."""
    return api_version.rpartition("/")[0]


def named(obj: Manifest) -> tuple[str, str]:
    """Group and resource of an object."""
    return group_of(obj["apiVersion"]), plural(obj["kind"])


@pytest.mark.parametrize("values", SCOPES.values(), ids=SCOPES)
def test_grants_every_call_that_the_operator_makes(values: Manifest, render: Render) -> None:
    granted = {
        (group, resource, verb)
        for rule in operator_rules(render(values))
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    requests = calls()
    assert {("batch", "jobs", "create"), ("apps", "deployments", "patch")} <= requests
    assert requests - granted == set()
    # And hardly more: what no golden case does has to be named here, with its reason.
    unseen = {
        ("hone.dev", "finetunejobs/finalizers", "update"),  # To own children where the cluster checks it.
        ("hone.dev", "modeldeployments/finalizers", "update"),
        ("", "nodes", "list"),  # Where memory of GPUs is not in the spec; without it, a plan is made for 80 GiB.
    }
    assert granted - requests <= unseen
