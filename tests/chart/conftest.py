"""Renders the chart with the real helm, which is built by dev.cluster where it is missing."""

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import schemas
from dev.cluster import build

CHART = Path(__file__).resolve().parents[2] / "charts/hone"
KUBE_VERSION = build.KUBERNETES_VERSION.removeprefix("v")

# The parser in C where PyYAML has it: the CRDs are long.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@functools.cache
def helm_binary() -> Path:
    """Where helm is, which is built where it is missing; asked before a test moves HONE_CACHE away from it."""
    build.ensure(["helm"])
    return build.binary("helm")


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([helm_binary(), *arguments], capture_output=True, text=True, timeout=60)


def manifests_of(values: Manifest, folder: Path) -> list[Manifest]:
    """The manifests of a release `hone` in namespace `hone-system`; a refusal of helm is an AssertionError."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    command = ("template", "hone", str(CHART), "--namespace", "hone-system", "--values", str(file))
    result = run_helm(*command, "--kube-version", KUBE_VERSION)
    assert result.returncode == 0, result.stderr
    return [manifest for manifest in yaml.load_all(result.stdout, LOADER) if manifest]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs helm on the chart: `helm("template", "hone", str(CHART))`."""
    helm_binary()
    return run_helm


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """The chart's manifests for the given values; a refusal of helm is an AssertionError with its words."""
    helm_binary()
    rendered: dict[str, str] = {}

    def run(values: Manifest | None = None) -> list[Manifest]:
        text = yaml.safe_dump(values or {})
        if text not in rendered:
            rendered[text] = json.dumps(manifests_of(values or {}, tmp_path_factory.mktemp("values")))
        manifests: list[Manifest] = json.loads(rendered[text])
        return manifests

    return run


@pytest.fixture(scope="session")
def kubeconform() -> Callable[[list[Manifest]], str]:
    """What kubeconform says against the manifests; nothing when it finds no fault."""
    build.ensure(["kubeconform"])
    command = [str(build.binary("kubeconform")), "-strict", "-schema-location", schemas.ensure()]

    def run(manifests: list[Manifest]) -> str:
        # No schema of the Prometheus Operator's kinds is at hand without a network.
        result = subprocess.run(
            [*command, "-skip", "PodMonitor,PrometheusRule", "-"],
            input=yaml.safe_dump_all(manifests),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return result.stdout + result.stderr

    return run


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """The manifests of these kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pod_of(manifests: list[Manifest]) -> Manifest:
    """The spec of the operator's pod."""
    (deployment,) = of_kind(manifests, "Deployment")
    spec: Manifest = deployment["spec"]["template"]["spec"]
    return spec


def env_of(manifests: list[Manifest]) -> dict[str, str]:
    """The plain environment variables of the operator."""
    (container,) = pod_of(manifests)["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
