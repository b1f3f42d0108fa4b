"""The policy on the operator's token: it permits what the role grants and nothing else, wherever the API exists."""

import ast
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from hone.api import API_VERSION, GROUP
from hone.core import names
from hone.runtime.events import CONTROLLER
from tests.chart.conftest import CHART, Manifest, Render, of_kind
from tests.chart.test_rbac import operator_rules

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
OPERATIONS = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}
VIRTUAL = {f"{GROUP}/finetunejobs/finalizers", f"{GROUP}/modeldeployments/finalizers"}
"""Rights that no request exercises: the API server only asks for them where others are written."""


def policy_of(manifests: list[Manifest]) -> Manifest:
    """The spec of the policy."""
    (policy,) = of_kind(manifests, POLICY)
    spec: Manifest = policy["spec"]
    return spec


def permitted(spec: Manifest) -> dict[str, set[str]]:
    """The operations that the policy permits, by group and resource. Its table in CEL is also a dict in Python."""
    (text,) = [variable["expression"] for variable in spec["variables"] if variable["name"] == "permitted"]
    table: dict[str, set[str]] = {}
    for target, operations in ast.literal_eval(text).items():
        group, version, resource = target.split("/", 2)
        assert version == ("v1" if group != GROUP else API_VERSION.partition("/")[2])
        table[f"{group}/{resource}"] = set(operations)
    return table


def granted(rules: list[Manifest]) -> dict[str, set[str]]:
    """The operations that the role grants, by group and resource."""
    table: dict[str, set[str]] = {}
    for rule in rules:
        operations = {OPERATIONS[verb] for verb in rule["verbs"] if verb in OPERATIONS}
        for resource in rule["resources"]:
            target = f"{rule['apiGroups'][0] or 'core'}/{resource}"
            if operations and target not in VIRTUAL:
                table.setdefault(target, set()).update(operations)
    return table


@pytest.mark.parametrize("enabled", [True, False])
def test_the_policy_permits_exactly_the_writes_that_the_role_grants(render: Render, enabled: bool) -> None:
    manifests = render({"networkPolicies": {"enabled": enabled}})
    table = permitted(policy_of(manifests))
    assert table == granted(operator_rules(manifests))
    # Only where Hone makes no policies may it delete those that it made before.
    assert ("DELETE" in table["networking.k8s.io/networkpolicies"]) is not enabled


def test_what_is_asked_of_a_policy_is_not_asked_of_one_that_is_deleted(render: Render) -> None:
    """In CEL, a field of null is an error, which would refuse each deletion."""
    (rule,) = (
        each["expression"]
        for each in policy_of(render())["validations"]
        if "variables.target != 'networking.k8s.io/v1/networkpolicies'" in each["expression"]
    )
    assert rule.index("|| object == null ||") < rule.index("object.spec")


def test_the_policy_covers_every_write_of_the_account_that_the_operator_runs_as(render: Render) -> None:
    spec = policy_of(render({"serviceAccount": {"name": "sharp"}}))
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert rule == {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}
    assert [condition["expression"] for condition in spec["matchConditions"]] == [
        "request.userInfo.username == 'system:serviceaccount:hone-system:sharp'"
    ]
    assert spec["failurePolicy"] == "Fail"


def test_what_breaks_the_policy_is_denied(render: Render) -> None:
    manifests = render()
    (policy,), (binding,) = of_kind(manifests, POLICY), of_kind(manifests, BINDING)
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}


def test_the_policy_names_labels_and_annotations_as_the_operator_does(render: Render) -> None:
    spec = policy_of(render())
    text = " ".join(entry["expression"] for entry in [*spec["variables"], *spec["validations"]])
    for word in (names.MANAGED_BY_LABEL, names.MANAGED_BY, names.UID_LABEL, names.RETAIN_ANNOTATION, CONTROLLER):
        assert f"'{word}'" in text, word
    assert f"startsWith('{GROUP}/')" in text


def test_every_refusal_has_words(render: Render) -> None:
    for validation in policy_of(render())["validations"]:
        words = validation.get("message") or validation["messageExpression"]
        assert "Hone's operator" in words and "\n" not in words, words


@pytest.mark.parametrize(
    ("kinds", "is_there"),
    {
        "a rendering without a cluster": ((), True),
        "a cluster that serves the API": (
            ("apps/v1/Deployment", f"admissionregistration.k8s.io/v1/{POLICY}"),
            True,
        ),
        "a cluster that does not": (("apps/v1/Deployment",), False),
    }.values(),
)
def test_the_policy_is_rendered_where_the_api_exists(
    kinds: tuple[str, ...], is_there: bool, helm: Callable[..., CompletedProcess[str]]
) -> None:
    flags = [flag for kind in kinds for flag in ("--api-versions", kind)]
    result = helm("template", "hone", str(CHART), "--kube-version", "1.35.0", *flags)
    assert result.returncode == 0, result.stderr
    assert (f"kind: {POLICY}\n" in result.stdout) is is_there


@pytest.mark.slow
def test_the_policy_can_be_switched_off(render: Render) -> None:
    assert of_kind(render({"admissionPolicies": {"operator": {"enabled": False}}}), POLICY, BINDING) == []


def test_releases_of_one_name_in_two_namespaces_have_policies_of_their_own(render: Render) -> None:
    (policy,) = of_kind(render(), POLICY)
    assert policy["metadata"]["name"] == "hone-operator.hone-system"
