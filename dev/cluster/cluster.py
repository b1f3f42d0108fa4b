"""The life of the one cluster on this machine: `up` starts, adopts or repairs it, `down` removes it, `status` looks."""

import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from dev.cluster import addons, build, cleanup, components, containerd, deps, network, node, paths
from dev.cluster.api import Api, answers
from dev.cluster.certs import Authority
from dev.cluster.components import ADMIN, Endpoint
from dev.cluster.processes import Processes
from dev.cluster.say import say, step, wait_until
from dev.lock import locked

COMPONENTS = (
    "containerd",
    "registry",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kube-router",
    "coredns",
    "local-path-provisioner",
)
NODE = f"/api/v1/nodes/{paths.NODE_NAME}"
DEFAULT_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
READY_SECONDS = 120.0


def processes() -> Processes:
    return Processes(paths.pids(), paths.logs())


def endpoint() -> Endpoint:
    return Endpoint(
        folder=paths.state(),
        bind="0.0.0.0",
        advertise=paths.BRIDGE_ADDRESS,
        port=paths.API_PORT,
        etcd_port=paths.ETCD_PORT,
        etcd_peer_port=paths.ETCD_PEER_PORT,
    )


def _locked() -> AbstractContextManager[None]:
    """Only one command, of whatever clone, may change the cluster at a time."""
    return locked(paths.cache() / ".cluster.lock", "another command that changes the cluster")


def problems() -> list[str]:
    """What keeps the cluster from being usable, in words; empty when it is ready."""
    running = processes()
    dead = [f"{name} is not running" for name in COMPONENTS if not running.running(name)]
    if dead:
        return dead if len(dead) < len(COMPONENTS) else ["nothing of it is running"]
    if not paths.kubeconfig().exists():
        return [f"{paths.kubeconfig()} is missing"]
    api = Api(paths.kubeconfig())
    checks: list[tuple[str, Callable[[], bool]]] = [
        ("the API server is not ready", api.ready),
        ("kubelet is not healthy", lambda: answers(f"http://127.0.0.1:{node.KUBELET_HEALTH_PORT}/healthz")),
        ("the node is not Ready", lambda: node_ready(api)),
        ("NetworkPolicies are not enforced", lambda: answers(f"http://127.0.0.1:{node.FIREWALL_HEALTH_PORT}/healthz")),
        ("the registry does not answer", lambda: containerd.registry_has("/v2/")),
        ("DNS does not answer", lambda: addons.resolves(f"kubernetes.default.svc.{paths.CLUSTER_DOMAIN}")),
        ("there is no default service account", lambda: api.exists(DEFAULT_SERVICE_ACCOUNT)),
        ("there is no default storage class", lambda: api.exists(next(iter(addons.MANIFESTS)))),
    ]
    return [text for text, holds in checks if not holds()]


def node_ready(api: Api) -> bool:
    if not api.exists(NODE):
        return False
    conditions = {c["type"]: c["status"] for c in api.get(NODE).get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True"


def up() -> None:
    """Make the cluster ready: adopt one that is, repair one that has lost processes, else start a new one."""
    deps.check_machine()
    with _locked():
        broken = problems()
        if not broken:
            say(f"the cluster is ready already; KUBECONFIG={paths.kubeconfig()}")
            return
        deps.ensure()
        build.ensure(build.NODE_TOOLS)
        running = processes()
        if running.running("etcd"):
            say(f"repairing the running cluster: {'; '.join(broken)}")
            try:
                _start(running)
                return
            except (RuntimeError, TimeoutError) as error:
                say(f"the repair failed ({error}); starting a new cluster")
        # Without etcd the cluster's objects are lost, so its old pods belong to nothing. Images stay.
        with step("removing what an earlier cluster left"):
            cleanup.tear_down(running, keep=["registry"])  # Somebody may be pushing an image.
        _refuse_taken_ports(running)
        _start(running)


def _refuse_taken_ports(running: Processes) -> None:
    ports = [paths.ETCD_PORT, paths.ETCD_PEER_PORT, paths.API_PORT, node.KUBELET_HEALTH_PORT, node.KUBELET_PORT]
    if not running.running("registry"):
        ports.append(int(paths.REGISTRY.rpartition(":")[2]))
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                sys.exit(
                    f"error: port {port} on 127.0.0.1 is taken by another program, perhaps another Kubernetes: "
                    f"`ss -ltnp sport = :{port}` names it. End it and try again."
                )


def _start(running: Processes) -> None:
    """Start what does not run, in the order of dependence, and return when pods can be made."""
    at = endpoint()
    with step("network, containerd and registry"):
        network.set_up()
        authority = Authority(paths.certs())
        containerd.start_registry(running)
        containerd.push_node_image()
        containerd.start(running, containerd.node_image())
    with step("etcd and API server"):
        components.start_etcd(running, at)
        components.start_apiserver(running, at, authority)
        api = Api(authority.kubeconfig(paths.kubeconfig(), at.server, "admin", ADMIN))
        running.wait_ready("kube-apiserver", api.ready, READY_SECONDS)
    with step("controllers, node and DNS"):
        components.start_controller_manager(running, at, authority)
        components.start_scheduler(running, at, authority)
        node.start_kubelet(running, authority, at.server)
        node.start_proxy(running, authority, at.server)
        addons.apply_manifests(api)
        addons.start_dns(running)
        addons.start_provisioner(running)
        # kube-router ends if its node does not exist yet.
        wait_until(lambda: api.exists(NODE), "kubelet registering the node", READY_SECONDS, interval=0.2)
        node.start_firewall(running, authority, at.server)
        wait_ready()
    say(f"the cluster is ready; KUBECONFIG={paths.kubeconfig()}")


def wait_ready(seconds: float = READY_SECONDS) -> None:
    """Poll until nothing is wrong.

    Raises RuntimeError with what still is, or at once with the end of the log of a component that died.
    """
    running = processes()

    def settled() -> bool:
        for name in COMPONENTS:
            if not running.running(name):
                raise RuntimeError(f"{name} ended; the end of {running.log(name)}:\n{running.tail(name)}")
        return not problems()

    try:
        wait_until(settled, "the cluster being ready", seconds, interval=0.3)
    except TimeoutError as error:
        raise RuntimeError(f"{error} Still wrong: {'; '.join(problems())}. Logs: {paths.logs()}") from None


def require_ready() -> None:
    """Raises SystemExit, saying what to do, when the cluster is not ready."""
    broken = problems()
    if broken:
        sys.exit(f"error: the cluster is not ready ({'; '.join(broken)}): run `python3 -m dev.cluster up`")


def down() -> None:
    """Remove the cluster; images and logs stay."""
    deps.check_machine()
    with _locked(), step("removing the cluster"):
        cleanup.tear_down(processes())


def status() -> int:
    """Print what runs and what is wrong; 0 when the cluster is ready, else 1."""
    running = processes()
    for name in COMPONENTS:
        identity = running.running(name)
        print(f"{name:26}{f'running, process {identity.pid}' if identity else 'not running'}")
    broken = problems()
    print("ready" if not broken else f"not ready: {'; '.join(broken)}")
    print(f"kubeconfig {paths.kubeconfig()}\nlogs       {paths.logs()}")
    return 1 if broken else 0


def environment() -> dict[str, str]:
    """Variables for shells and tests that use the cluster: KUBECONFIG, and PATH with the built tools first."""
    folders: list[Path] = [build.folder(name) for name in build.TOOLS if build.folder(name).exists()]
    path = ":".join([*map(str, folders), deps.search_path()])
    return {"KUBECONFIG": str(paths.kubeconfig()), "PATH": path, **paths.no_proxy()}
