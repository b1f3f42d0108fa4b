"""The NetworkPolicies of a FineTuneJob and a ModelDeployment, in force: the cluster's kube-router enforces them."""

import time
from collections.abc import Iterator

import pytest

from dev.cluster import containerd
from dev.kube import Kube, Object
from hone.contract.runconfig import MASTER_PORT, METRICS_PORT
from hone.core.finetunejob.resources import networkpolicy as run_policy
from hone.core.finetunejob.run import Run
from hone.core.modeldeployment.resources import access
from hone.core.modeldeployment.resources import networkpolicy as server_policy
from hone.core.modeldeployment.server import HTTP_PORT, Server
from hone.core.names import UID_LABEL
from hone.core.network import NetworkPeers
from hone.core.settings import Settings

NAMESPACE, OUTSIDE = "hone-policies", "hone-policies-outside"
SECONDS = 90
IN_OUTSIDE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": OUTSIDE}}}
OPERATOR = {**IN_OUTSIDE, "podSelector": {"matchLabels": {"role": "operator"}}}
GATEWAY = {**IN_OUTSIDE, "podSelector": {"matchLabels": {"role": "gateway"}}}
PROMETHEUS = {**IN_OUTSIDE, "podSelector": {"matchLabels": {"role": "prometheus"}}}
SETTINGS = Settings(network_policies=NetworkPeers(operator=(OPERATOR,), clients=(GATEWAY,), metrics=(PROMETHEUS,)))


def resource(kind: str, spec: Object) -> Object:
    """A resource of that kind whose uid is its kind; it exists only here."""
    meta = {"name": "it", "namespace": NAMESPACE, "uid": kind.lower()}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


RUN = Run(resource("FineTuneJob", {}), SETTINGS)
SERVER = Server(resource("ModelDeployment", {"model": {"claimName": "models"}}), SETTINGS)
OWN, SERVING = {UID_LABEL: RUN.uid}, {UID_LABEL: SERVER.uid}


def pod(name: str, labels: dict[str, str], *arguments: str, namespace: str = NAMESPACE) -> Object:
    """A pod with the cluster's probe."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [{"name": "probe", "image": containerd.node_image(), "command": ["/probe", *arguments]}],
        },
    }


def serving(name: str, labels: dict[str, str], port: int) -> Object:
    """A pod that answers on a port for as long as the test may take."""
    return pod(name, labels, f"-serve=:{port}", "-read=/never", "-timeout=10m")


def created(policy: Object) -> Object:
    """The policy without the owner, which does not exist here."""
    meta = {key: value for key, value in policy["metadata"].items() if key != "ownerReferences"}
    return {**policy, "metadata": meta}


@pytest.fixture(scope="module")
def addresses(kube: Kube) -> Iterator[dict[str, str]]:
    """The addresses of the pods that are protected, by name."""
    for namespace in (NAMESPACE, OUTSIDE):
        kube.run("delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s", seconds=80)
    kube.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in (NAMESPACE, OUTSIDE)))
    kube.apply(created(run_policy.network_policy(RUN)), created(server_policy.network_policy(SERVER)))
    kube.apply(
        serving("rank", OWN, MASTER_PORT),
        serving("metrics", OWN, METRICS_PORT),
        serving("server", SERVING, HTTP_PORT),
        serving("server-metrics", SERVING, access.METRICS_PORT),
        serving("bystander", {}, HTTP_PORT),
    )
    at = kube.within(NAMESPACE)
    names = ("rank", "metrics", "server", "server-metrics", "bystander")
    ready = {name: at.wait("pod", name, lambda p: "podIP" in p.get("status", {}), "IP", SECONDS) for name in names}
    yield {name: live["status"]["podIP"] for name, live in ready.items()}
    for namespace in (NAMESPACE, OUTSIDE):
        kube.run("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")


CASES = {
    "a pod of the run reaches a rank": ("peer", OWN, NAMESPACE, "rank", MASTER_PORT, True),
    "a stranger in the namespace does not": ("stranger", {}, NAMESPACE, "rank", MASTER_PORT, False),
    "nor with the labels of the run in another namespace": ("alike", OWN, OUTSIDE, "rank", MASTER_PORT, False),
    "nor the operator": ("operator-rank", {"role": "operator"}, OUTSIDE, "rank", MASTER_PORT, False),
    "the operator reads progress": ("operator", {"role": "operator"}, OUTSIDE, "metrics", METRICS_PORT, True),
    "a stranger does not read progress": ("stranger-metrics", {}, NAMESPACE, "metrics", METRICS_PORT, False),
    "a client in the namespace calls the model": ("client", {}, NAMESPACE, "server", HTTP_PORT, True),
    "a gateway calls the model": ("gateway", {"role": "gateway"}, OUTSIDE, "server", HTTP_PORT, True),
    "Prometheus does not call the model": ("scraper", {"role": "prometheus"}, OUTSIDE, "server", HTTP_PORT, False),
    "Prometheus reads the server's metrics": (
        "scraper-metrics",
        {"role": "prometheus"},
        OUTSIDE,
        "server-metrics",
        access.METRICS_PORT,
        True,
    ),
    "a client does not": ("client-metrics", {}, NAMESPACE, "server-metrics", access.METRICS_PORT, False),
    "a stranger elsewhere does not": ("elsewhere", {}, OUTSIDE, "server", HTTP_PORT, False),
    "a rank connects to nobody else": ("rank-out", OWN, NAMESPACE, "bystander", HTTP_PORT, False),
    "a server connects to nobody": ("server-out", SERVING, NAMESPACE, "bystander", HTTP_PORT, False),
    "anybody reaches a pod that is not ours": ("anybody", {}, OUTSIDE, "bystander", HTTP_PORT, True),
}


@pytest.fixture(scope="module")
def phases(kube: Kube, addresses: dict[str, str]) -> dict[str, str]:
    """How each attempt to connect ended; all at once. It succeeds if it was admitted, or refused, as it should."""
    for name, labels, namespace, target, port, admitted in CASES.values():
        expected = f"-{'get' if admitted else 'refused'}=http://{addresses[target]}:{port}"
        arguments = [expected, "-timeout=60s", "-linger=0s"]
        kube.apply(pod(name, labels, "-serve=:9", *arguments, namespace=namespace))
    deadline = time.monotonic() + SECONDS
    return {
        name: ended(kube.within(namespace), name, deadline - time.monotonic())
        for name, _, namespace, *_ in CASES.values()
    }


def ended(kube: Kube, name: str, seconds: float) -> str:
    """Wait for a pod's end; its phase."""
    live = kube.wait(
        "pod", name, lambda p: p.get("status", {}).get("phase") in ("Succeeded", "Failed"), "an end", max(1.0, seconds)
    )
    return str(live["status"]["phase"])


@pytest.mark.parametrize("case", CASES)
def test_it_holds(case: str, kube: Kube, phases: dict[str, str]) -> None:
    name, _, namespace, *_ = CASES[case]
    log = kube.within(namespace).run("logs", name)
    assert phases[name] == "Succeeded", log


def test_names_resolve(kube: Kube, addresses: dict[str, str]) -> None:
    """DNS is allowed, although nothing else outside is."""
    name = "kubernetes.default.svc.cluster.local"
    kube.apply(pod("dns", OWN, "-serve=:9", f"-resolve={name}", "-timeout=30s", "-linger=0s"))
    at = kube.within(NAMESPACE)
    assert ended(at, "dns", 60) == "Succeeded", at.run("logs", "dns")
