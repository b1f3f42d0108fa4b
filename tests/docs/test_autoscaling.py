"""The examples of autoscaling: valid for HPA and KEDA, about a server of the examples, with labels that pods have."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft4Validator

from dev import schemas
from dev.cluster import build
from hone.core.names import ROLE_LABEL
from tests.docs.support import ROOT, documents
from tests.monitoring import AUTOSCALING, scaling

KEDA = Path(__file__).with_name("schemas") / "keda-scaledobject.json"


def only(name: str) -> dict[str, Any]:
    """The one manifest of a file."""
    (document,) = documents(AUTOSCALING / name)
    return document


def problems_of_keda(manifest: dict[str, Any]) -> list[str]:
    """What the CRD of ScaledObjects does not admit."""
    schema = schemas.strict(json.loads(KEDA.read_text()))
    return [error.message for error in Draft4Validator(schema).iter_errors(manifest["spec"])]


def test_the_hpa_is_valid() -> None:
    build.ensure(["kubeconform"])
    command = [str(build.binary("kubeconform")), "-strict", "-schema-location", schemas.ensure(), "-"]

    def verdict(manifest: dict[str, Any]) -> int:
        return subprocess.run(command, input=yaml.safe_dump(manifest), text=True, timeout=60, check=False).returncode

    hpa = only("hpa.yaml")
    assert verdict(hpa) == 0
    hpa["spec"]["metrics"][0]["pods"]["target"]["averageVal"] = 1
    assert verdict(hpa) != 0


def test_the_scaled_object_is_valid() -> None:
    scaled = only("keda.yaml")
    assert problems_of_keda(scaled) == []
    del scaled["spec"]["triggers"][0]["metadata"]
    scaled["spec"]["maxReplicas"] = 4
    assert len(problems_of_keda(scaled)) == 2


def test_both_scale_a_server_of_the_examples_that_sets_no_number_itself() -> None:
    servers = {
        server["metadata"]["name"]: server["spec"]
        for path in (ROOT / "examples").glob("*.yaml")
        for server in documents(path)
        if server["kind"] == "ModelDeployment"
    }
    for manifest in (only("hpa.yaml"), only("keda.yaml")):
        target = manifest["spec"]["scaleTargetRef"]
        assert (target["apiVersion"], target["kind"]) == ("hone.dev/v1alpha1", "ModelDeployment")
        assert "replicas" not in servers[target["name"]]


def test_neither_scales_to_zero_since_nothing_would_wake_the_server() -> None:
    assert only("hpa.yaml")["spec"]["minReplicas"] == only("keda.yaml")["spec"]["minReplicaCount"] == 1


def test_the_hpa_asks_for_the_metric_that_the_adapter_makes() -> None:
    (rule,) = only("prometheus-adapter.yaml")["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    name = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    assert [metric["pods"]["metric"]["name"] for metric in only("hpa.yaml")["spec"]["metrics"]] == [name]


def test_queries_select_by_labels_that_the_chart_has_pods_scraped_with() -> None:
    text = (ROOT / "charts/hone/templates/metrics.yaml").read_text()
    copied = re.search(r"podTargetLabels: \[(.*)\]", text)
    assert copied is not None
    assert ROLE_LABEL in copied[1]
    known = {"namespace", "pod", *(re.sub(r"[./-]", "_", label) for label in copied[1].split(", "))}
    for query in scaling():
        labels = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', query))
        assert labels, query
        assert labels <= known
