"""The chart as rendered: valid for every choice of values, its CRDs kept, its pod restricted, its images relocated."""

import json
import re
import subprocess
from collections.abc import Callable

import pytest
import yaml

from hone.core import names
from hone.runtime import options
from hone.runtime.options import from_environment
from tests.chart.conftest import CHART, Manifest, Render, env_of, of_kind, pod_of

VARIANTS = {
    "default": {},
    "two namespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "no CRDs": {"crds": {"enabled": False}},
    "a mirror": {"image": {"registry": "mirror.example.com/hub", "pullPolicy": "Always", "pullSecrets": ["pull"]}},
    "digests": {"image": {"operator": {"digest": f"sha256:{'0' * 64}"}}},
    "pod monitors": {"metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}},
    "alerts and dashboards": {
        "metrics": {
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Hone"}, "namespace": "monitoring"},
        }
    },
    "allow-lists": {"admissionPolicies": {"users": {"enabled": True, "images": [], "tolerations": ["gpu", "team-*"]}}},
    "no policies": {"admissionPolicies": {"operator": {"enabled": False}}},
    "two pods": {"operator": {"replicas": 2, "leaseSeconds": 20}},
    "no metrics service": {"metrics": {"service": {"enabled": False}}},
    "scheduling": {
        "operator": {
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]
                    }
                }
            },
            "priorityClassName": "system-cluster-critical",
            "podLabels": {"team": "platform"},
            "podAnnotations": {"note": "yes"},
        },
        "serviceAccount": {"name": "hone-sa", "annotations": {"note": "yes"}},
        "fullnameOverride": "sharpen",
    },
}


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.slow
def test_kubeconform_finds_no_fault(
    values: Manifest, render: Render, kubeconform: Callable[[list[Manifest]], str]
) -> None:
    assert kubeconform(render(values)) == ""


def test_kubeconform_would_find_a_fault(render: Render, kubeconform: Callable[[list[Manifest]], str]) -> None:
    manifests = render()
    pod_of(manifests)["hostNetwrk"] = True
    assert "hostNetwrk" in kubeconform(manifests)


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_helm_lint_finds_no_fault(
    values: Manifest, helm: Callable[..., subprocess.CompletedProcess[str]], tmp_path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    result = helm("lint", str(CHART), "--strict", "--values", str(file))
    assert result.returncode == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("[")] == []


@pytest.mark.parametrize(
    ("replicas", "strategy", "budgets"), [(0, "Recreate", 0), (1, "Recreate", 0), (2, "RollingUpdate", 1)]
)
def test_more_than_one_pod_is_replaced_one_by_one_and_keeps_one_in_drains(
    replicas: int, strategy: str, budgets: int, render: Render
) -> None:
    manifests = render({"operator": {"replicas": replicas}})
    (deployment,) = of_kind(manifests, "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]["type"]) == (replicas, strategy)
    selectors = [budget["spec"]["selector"] for budget in of_kind(manifests, "PodDisruptionBudget")]
    assert selectors == [deployment["spec"]["selector"]] * budgets


def test_crds_are_installed_and_kept_on_uninstall(render: Render) -> None:
    crds = of_kind(render(), "CustomResourceDefinition")
    assert {crd["spec"]["names"]["kind"] for crd in crds} == {"FineTuneJob", "ModelDeployment"}
    for crd in crds:
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crds_can_be_left_to_others(render: Render) -> None:
    assert of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition") == []


def test_the_charts_crds_are_those_of_the_crds_folder(render: Render) -> None:
    folder = CHART.parents[1] / "crds"
    ours = {crd["metadata"]["name"]: crd for crd in map(yaml.safe_load, (p.read_text() for p in folder.glob("*.yaml")))}
    assert {crd["metadata"]["name"]: crd for crd in of_kind(render(), "CustomResourceDefinition")} == ours


def images_of(manifests: list[Manifest]) -> dict[str, str]:
    """Every image that the release names, by where it is named."""
    (container,) = pod_of(manifests)["containers"]
    named = {key: value for key, value in env_of(manifests).items() if key.endswith("_IMAGE")}
    return {"operator": container["image"], **named}


def test_the_operator_is_told_every_image_it_knows_of(render: Render) -> None:
    known = {name for name, _ in options.table() if name.endswith("_IMAGE")}
    assert set(images_of(render())) == {"operator", *known}


@pytest.mark.slow
def test_one_value_relocates_all_images(render: Render) -> None:
    default, moved = images_of(render()), images_of(render({"image": {"registry": "mirror.example.com:5000/hub/"}}))
    for name, image in default.items():
        _, _, repository = image.partition("/")
        assert moved[name] == f"mirror.example.com:5000/hub/{repository}"


def test_the_default_images_are_those_that_the_operator_would_take_by_itself(render: Render) -> None:
    named = {key: value for key, value in images_of(render()).items() if key != "operator"}
    defaults = dict(options.table())
    assert named == {key: defaults[key].replace("vllm/", "docker.io/vllm/", 1) for key in named}


def test_a_digest_wins_over_the_tag(render: Render) -> None:
    digest = f"sha256:{'a' * 64}"
    images = images_of(render({"image": {"trainer": {"tag": "x", "digest": digest}}}))
    assert images["HONE_TRAINER_IMAGE"] == f"ghcr.io/hone-dev/hone-trainer@{digest}"


def test_every_variable_that_is_set_is_one_that_the_operator_reads(render: Render) -> None:
    (container,) = pod_of(render())["containers"]
    assert {entry["name"] for entry in container["env"]} <= {name for name, _ in options.table()}


def test_the_operator_understands_the_variables(render: Render) -> None:
    values = {
        "watchNamespaces": ["team-a", "team-b"],
        "operator": {"logLevel": "debug", "resyncSeconds": 600},
        "huggingFace": {"endpoint": "https://hub.example.com"},
        "s3": {"endpoints": ["http://minio.storage.svc:9000", "https://s3.internal"]},
        "cache": {"claimName": "hone-cache", "sizeLimit": "500Gi"},
        "oci": {"registries": ["registry.tools.svc:5000"]},
    }
    read = options.from_environment(env_of(render(values)))
    assert read.watch_namespaces == ("team-a", "team-b")
    assert read.log_level == "debug"
    assert read.settings.resync_seconds == 600
    assert read.settings.hub_endpoint == "https://hub.example.com"
    assert (read.settings.cache_claim, read.settings.cache_size_limit) == ("hone-cache", "500Gi")
    assert read.settings.s3_endpoints == ("http://minio.storage.svc:9000", "https://s3.internal")
    assert read.settings.oci_registries == ("registry.tools.svc:5000",)


def test_the_probes_and_ports_are_those_that_the_operator_opens(render: Render) -> None:
    manifests = render()
    (container,) = pod_of(manifests)["containers"]
    read = options.from_environment(env_of(manifests))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": read.metrics_port, "probes": read.probe_port}


def pod_monitors(render: Render) -> dict[str, Manifest]:
    """The specs of the PodMonitors, by name."""
    monitors = of_kind(render({"metrics": {"podMonitor": {"enabled": True}}}), "PodMonitor")
    return {monitor["metadata"]["name"]: monitor["spec"] for monitor in monitors}


def test_only_the_operators_own_labels_win_over_those_of_its_pod(render: Render) -> None:
    # Its gauges name the resource's namespace; a workload's image is its user's, and may not name another namespace.
    honors = {
        name: {endpoint.get("honorLabels", False) for endpoint in spec["podMetricsEndpoints"]}
        for name, spec in pod_monitors(render).items()
    }
    assert honors == {"hone": {True}, "hone-workloads": {False}}


LIMITS = ("sampleLimit", "labelLimit", "labelNameLengthLimit", "labelValueLengthLimit")


def test_no_scrape_is_without_limits(render: Render) -> None:
    monitors = pod_monitors(render)
    assert len(monitors) == 2
    for spec in monitors.values():
        assert all(type(spec[limit]) is int and spec[limit] > 0 for limit in LIMITS), spec
        assert re.fullmatch("[1-9][0-9]*MB", spec["bodySizeLimit"])
    assert monitors["hone"]["sampleLimit"] > monitors["hone-workloads"]["sampleLimit"]


def test_limits_of_scrapes_are_those_of_the_values(render: Render) -> None:
    limits = {limit: number for number, limit in enumerate(LIMITS, 1_000_001)}
    sizes = {"bodySizeLimit": "3MiB", "operatorBodySizeLimit": "0"}
    values = {"enabled": True, "operatorSampleLimit": 0, **sizes, **limits}
    specs = {
        each["metadata"]["name"]: each["spec"]
        for each in of_kind(render({"metrics": {"podMonitor": values}}), "PodMonitor")
    }
    assert {limit: specs["hone-workloads"][limit] for limit in LIMITS} == limits
    assert specs["hone"]["sampleLimit"] == 0
    assert (specs["hone-workloads"]["bodySizeLimit"], specs["hone"]["bodySizeLimit"]) == ("3MiB", "0")


def test_a_workloads_series_name_its_resource_step_and_role(render: Render) -> None:
    assert pod_monitors(render)["hone-workloads"]["podTargetLabels"] == [
        *names.RESOURCE_LABELS.values(),
        names.STEP_LABEL,
        names.ROLE_LABEL,
    ]


def test_never_two_operators_at_a_time(render: Render) -> None:
    (deployment,) = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_pod_passes_restricted_pod_security(render: Render) -> None:
    pod = pod_of(render())
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_selectors_never_match_what_the_operator_makes(render: Render) -> None:
    # The operator watches by managed-by=hone; its own objects must not be among them.
    for manifest in render():
        labels = manifest["metadata"].get("labels") or {}
        assert labels.get("app.kubernetes.io/managed-by") != "hone"


def test_every_value_is_described_and_in_the_schema() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(values: Manifest, node: Manifest, path: str) -> None:
        node = schema["definitions"]["image"] if "$ref" in node else node
        for key, value in values.items():
            assert key in node["properties"], f"{path}{key} is not in values.schema.json"
            if isinstance(value, dict) and "properties" in node["properties"][key]:
                walk(value, node["properties"][key], f"{path}{key}.")

    walk(yaml.safe_load(text), schema, "")
    lines = text.splitlines()
    for number, line in enumerate(lines):
        key, colon, value = line.strip().partition(":")
        is_leaf = colon and (value.strip() or line.startswith("    ") is False)
        if is_leaf and value.strip() and not key.startswith(("#", "requests", "limits")):
            assert lines[number - 1].strip().startswith("#"), f"{key} has no description above it"


def test_network_policies_admit_the_operator_and_those_who_scrape(render: Render) -> None:
    manifests = render({"networkPolicies": {"clients": [{"namespaceSelector": {"matchLabels": {"name": "gateway"}}}]}})
    (policy,) = of_kind(manifests, "NetworkPolicy")
    (deployment,) = of_kind(manifests, "Deployment")
    pod = deployment["spec"]["template"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (rule,) = policy["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["metrics"] and rule["from"]
    env = {entry["name"]: entry.get("value", "") for entry in pod["spec"]["containers"][0]["env"]}
    peers = from_environment({"HONE_NETWORK_POLICIES": env["HONE_NETWORK_POLICIES"]}).settings.network_policies
    assert peers is not None and peers.clients and list(peers.metrics) == rule["from"] and not peers.enforced
    (operator,) = peers.operator
    assert operator["podSelector"]["matchLabels"] == policy["spec"]["podSelector"]["matchLabels"]
    namespace = {"kubernetes.io/metadata.name": deployment["metadata"]["namespace"]}
    assert operator["namespaceSelector"]["matchLabels"] == namespace


def test_without_network_policies_there_are_none(render: Render) -> None:
    manifests = render({"networkPolicies": {"enabled": False}})
    assert not of_kind(manifests, "NetworkPolicy")
    assert "HONE_NETWORK_POLICIES" not in str(of_kind(manifests, "Deployment"))


def test_the_alerts_are_those_of_the_file(render: Render) -> None:
    (rule,) = of_kind(render(VARIANTS["alerts and dashboards"]), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "monitoring/rules.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert not of_kind(render({}), "PrometheusRule")


def test_each_dashboard_is_in_a_config_map_that_grafana_finds(render: Render) -> None:
    files = {f"hone-{path.name}": path.read_text() for path in (CHART / "monitoring/dashboards").glob("*.json")}
    maps = [
        each
        for each in of_kind(render(VARIANTS["alerts and dashboards"]), "ConfigMap")
        if each["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    assert len(files) == 3
    assert {name: text.rstrip() for each in maps for name, text in each["data"].items()} == {
        name: text.rstrip() for name, text in files.items()
    }
    assert {each["metadata"]["namespace"] for each in maps} == {"monitoring"}
