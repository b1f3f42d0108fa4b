"""Values that the chart refuses: each refusal names the value."""

from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART

BAD = {
    "a misspelled value at the top": ({"watchNamespace": ["a"]}, "watchNamespace"),
    "a misspelled value below": ({"image": {"regsitry": "x"}}, "regsitry"),
    "a registry with a scheme": ({"image": {"registry": "https://x.example.com"}}, "/image/registry"),
    "a tag that YAML reads as a number": ({"image": {"operator": {"tag": 1.10}}}, "/image/operator/tag"),
    "a digest that is none": ({"image": {"trainer": {"digest": "latest"}}}, "/image/trainer/digest"),
    "an upper-case repository": ({"image": {"server": {"repository": "Hone"}}}, "/image/server/repository"),
    "an unknown pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    "text for a switch": ({"crds": {"enabled": "yes please"}}, "/crds/enabled"),
    "text for a list": ({"watchNamespaces": "team-a"}, "/watchNamespaces"),
    "a namespace with a comma": ({"watchNamespaces": ["a,b"]}, "/watchNamespaces/0"),
    "an unknown log level": ({"operator": {"logLevel": "trace"}}, "/operator/logLevel"),
    "no worker": ({"operator": {"workers": 0}}, "/operator/workers"),
    "a resync that would never end": ({"operator": {"resyncSeconds": 1}}, "/operator/resyncSeconds"),
    "ten replicas": ({"operator": {"replicas": 10}}, "/operator/replicas"),
    "a Lease that is over before it is renewed": ({"operator": {"leaseSeconds": 1}}, "/operator/leaseSeconds"),
    "an interval without a unit": ({"metrics": {"podMonitor": {"interval": "30"}}}, "/metrics/podMonitor/interval"),
    "no list": ({"admissionPolicies": {"users": {"images": "a"}}}, "/admissionPolicies/users/images"),
    "a star in the middle": (
        {"admissionPolicies": {"users": {"images": ["a*b"]}}},
        "/admissionPolicies/users/images/0",
    ),
    "a quote": ({"admissionPolicies": {"users": {"images": ['a"b']}}}, "/admissionPolicies/users/images/0"),
    "a limit below 0": ({"metrics": {"podMonitor": {"sampleLimit": -1}}}, "/metrics/podMonitor/sampleLimit"),
    "a size without a unit": ({"metrics": {"podMonitor": {"bodySizeLimit": "5"}}}, "/metrics/podMonitor/bodySizeLimit"),
    "a registry for all charts": ({"global": {"imageRegistry": "mirror.example.com"}}, "set image.registry"),
    "a name with a dot": ({"fullnameOverride": "a.b"}, "/fullnameOverride"),
}


@pytest.mark.parametrize(("values", "names"), BAD.values(), ids=BAD)
def test_refuses(values: dict[str, Any], names: str, helm, tmp_path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    result = helm("template", "hone", str(CHART), "--values", str(file))
    assert result.returncode != 0
    assert names in result.stderr


def test_accepts_a_registry_for_all_charts_where_its_own_is_set(helm) -> None:
    settings = ("--set", "global.imageRegistry=a.example.com", "--set", "image.registry=b.example.com")
    result = helm("template", "hone", str(CHART), *settings)
    assert result.returncode == 0, result.stderr
    assert "a.example.com" not in result.stdout
    assert "b.example.com/hone-dev/hone-operator" in result.stdout
