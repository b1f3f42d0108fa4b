"""Settings of pods that Kubernetes would refuse in a Job are refused in the spec, and none that it would accept."""

from typing import Any

import pytest

from hone.contract.rules import refusals
from hone.contract.rules.pods import pod_settings

RULES = tuple(pod_settings("spec.pod"))
LONG = "n" * 63


@pytest.mark.parametrize(
    "settings",
    [
        {"labels": {"team": "nlp", "example.com/Team_1.x": "", "a.b-c.d/9": LONG, LONG: "A"}},
        {"nodeSelector": {"kubernetes.io/arch": "amd64", "gpu": "9.x_y"}},
        {"annotations": {"Example.COM/a": "any text: ü / \n", "a": ""}},
        {
            "tolerations": [
                {"operator": "Exists"},
                {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
            ]
        },
        {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "value": ""}, {"key": "a", "value": "b"}]},
        {"tolerations": [{"key": "a"}, {"key": "a", "operator": "Equal", "value": ""}], "labels": {}},
    ],
)
def test_what_kubernetes_accepts_is_accepted(settings: dict[str, Any]) -> None:
    assert refusals(RULES, {"spec": {"pod": settings}}) == []


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        *(
            ({kind: {key: "a"}}, f"spec.pod.{kind}")
            for kind in ("labels", "nodeSelector", "annotations")
            for key in ("a b", "", "/a", "a/", "a/b/c", "-a", "a.", "ü", LONG + "n", "a_b/c", "a..b/c", "a\n")
        ),
        *(
            ({kind: {"a": value}}, f"spec.pod.{kind}")
            for kind in ("labels", "nodeSelector")
            for value in ("a b", "-a", "a/b", "ü", LONG + "n", "a\n")
        ),
        ({"labels": {"Example.com/a": "b"}}, "spec.pod.labels"),
        ({"tolerations": [{"key": "a", "tolerationSeconds": 5}]}, "spec.pod.tolerations[0].tolerationSeconds"),
        (
            {"tolerations": [{"key": "a"}, {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]},
            "spec.pod.tolerations[1].tolerationSeconds",
        ),
        ({"tolerations": [{"effect": "NoSchedule"}]}, "spec.pod.tolerations[0].operator"),
        ({"tolerations": [{"key": "", "operator": "Equal"}]}, "spec.pod.tolerations[0].operator"),
        ({"tolerations": [{"key": "a b"}]}, "spec.pod.tolerations[0].key"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "spec.pod.tolerations[0].value"),
        ({"tolerations": [{"key": "a", "value": "b c"}]}, "spec.pod.tolerations[0].value"),
    ],
)
def test_what_kubernetes_refuses_is_refused_by_field(settings: dict[str, Any], field: str) -> None:
    assert [refusal.field for refusal in refusals(RULES, {"spec": {"pod": settings}})] == [field]
