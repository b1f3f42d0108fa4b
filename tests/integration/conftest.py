"""One control plane for all integration tests: etcd, kube-apiserver, controllers, kwok, and Hone's CRDs."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from dev.cluster import deps
from dev.cluster.controlplane import ControlPlane
from dev.cluster.say import wait_until
from hone.api.crds import crds
from hone.runtime.client import Client
from hone.runtime.metrics import Metrics
from tests.chart.conftest import manifests_of
from tests.integration.identity import Identity, install
from tests.integration.kubelet import stages
from tests.integration.support import Cluster, NewCluster, object_of

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder is an integration test, but for long repetitions."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A running control plane that knows Hone's kinds. A tool that is missing is built, or named in the error."""
    with ControlPlane(controllers=True, kwok=True, stages=stages()) as control_plane:
        for crd in crds().values():
            name = crd["metadata"]["name"]
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
            control_plane.api.apply(path, crd)
            wait_until(lambda path=path: _established(control_plane, path), f"{name} being established", 120)
        yield control_plane


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' linter, installed from Debian where it is missing."""
    deps.ensure(["promtool"])
    return "promtool"


@pytest.fixture(scope="session")
def identity(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """The operator's account, with the rights and the policy that the chart gives it, and no others."""
    folder = tmp_path_factory.mktemp("identity")
    return install(plane.api, plane.kubeconfig, manifests_of({}, folder), folder)


def _configuration(kubeconfig: Path) -> Configuration:
    """The client's configuration for the control plane."""
    client_configuration = Configuration()
    client_configuration.retries = False
    asyncio.run(load_kube_config(config_file=str(kubeconfig), client_configuration=client_configuration))
    return client_configuration


@pytest.fixture(scope="session")
def administrator(plane: ControlPlane) -> Configuration:
    """How an administrator reaches the API server."""
    return _configuration(plane.kubeconfig)


@pytest.fixture(scope="session")
def configuration(identity: Identity) -> Configuration:
    """How the operator reaches the API server."""
    return _configuration(identity.kubeconfig)


@pytest.fixture
async def new_cluster(
    plane: ControlPlane, identity: Identity, administrator: Configuration, configuration: Configuration
) -> AsyncIterator[NewCluster]:
    """Makes namespaces of the test's own, which enforce restricted Pod Security, with a client for each."""
    client = Client(ApiClient(administrator), Metrics(), field_manager="test")

    async def make() -> Cluster:
        namespace = f"test-{next(_numbers)}"
        body = object_of("v1", "Namespace", namespace)
        body["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
        await client.create("", body)
        return Cluster(client, configuration, namespace, plane.kubeconfig, identity.kubeconfig)

    yield make
    await client.close()


@pytest.fixture
async def cluster(new_cluster: NewCluster) -> Cluster:
    """A namespace of the test's own."""
    return await new_cluster()


def _established(plane: ControlPlane, path: str) -> bool:
    conditions = plane.api.get(path).get("status", {}).get("conditions") or []
    broken = [c for c in conditions if c["type"] == "NonStructuralSchema" and c["status"] == "True"]
    assert not broken, json.dumps(broken)
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
