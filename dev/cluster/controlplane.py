"""A throwaway control plane on free loopback ports, for tests: etcd and the API server, controllers, and kwok's nodes.

with ControlPlane(controllers=True, kwok=True) as plane:
    subprocess.run(["kubectl", "--kubeconfig", plane.kubeconfig, "get", "nodes"])
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.cluster import build, components, deps, kwok
from dev.cluster.api import Api
from dev.cluster.certs import Authority
from dev.cluster.components import ADMIN, Endpoint
from dev.cluster.processes import Identity, Processes

STORAGE_CLASS = "standard"
# Where the controller manager makes the directories of test volumes; they are removed at the end.
_VOLUMES = Path("/tmp/hostpath_pv")
_READY_SECONDS = 240.0
_WATCHDOG = """
while read word; do [ "$word" = stopped ] && exit 0; pids="$pids $word"; done
kill -9 $pids; rm -rf "$0"
"""


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class ControlPlane:
    """etcd and kube-apiserver in a temporary folder; many may run at once.

    controllers: also all of kube-controller-manager and kube-scheduler, and a default storage class that binds claims.
    kwok: also kwok and a fake node `fake-0` with 8 GPUs.
    stages: kwok Stages for pods, as manifests; default `kwok.pod_stages()`: they run, and those of Jobs complete.
    folder: where its files go, made if missing; default a new temporary folder. Removed by `stop` either way.
    flags: more flags for components, by the component's name, such as `kube-apiserver`.

    `kubeconfig` is an administrator's; `api` makes plain calls; etcd listens on `etcd_port` of this host, without TLS.
    Everything ends with `stop`, or when this process does, however it does.
    """

    def __init__(
        self,
        controllers: bool = True,
        kwok: bool = False,
        stages: Sequence[kwok.Manifest] | None = None,
        folder: Path | None = None,
        flags: Mapping[str, Sequence[str]] | None = None,
    ):
        self._controllers, self._kwok, self._stages = controllers or kwok, kwok, stages
        self._flags = flags or {}
        self.folder = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="hone-control-plane-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is not empty: name a new folder, since it is removed at the end")
        self._watchdog: subprocess.Popen[str] | None = None
        self.processes = Processes(self.folder / "pids", self.folder / "logs", self._guard)
        self.kubeconfig = self.folder / "kubeconfig"
        self.api: Api
        self.etcd_port = 0

    def start(self) -> Self:
        """Return when the API server is ready, and with kwok when its node is.

        Raises RuntimeError with the end of the log of a component that died; nothing is left running then.
        """
        deps.ensure(["etcd", "openssl"])
        build.ensure(build.CONTROL_PLANE_TOOLS if self._kwok else ("kubernetes",))
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        port, self.etcd_port, peer_port = free_ports(3)
        at = Endpoint(self.folder, "127.0.0.1", "127.0.0.1", port, self.etcd_port, peer_port)
        authority = Authority(self.folder / "certs")
        components.start_etcd(self.processes, at)
        # Debian's etcd 3.4 cannot stream lists, and kwok's watches would end and back off again and again.
        gates = "--feature-gates=WatchList=false"
        more = self._flags.get("kube-apiserver", ())
        components.start_apiserver(self.processes, at, authority, "--endpoint-reconciler-type=none", gates, *more)
        self.api = Api(authority.kubeconfig(self.kubeconfig, at.server, "admin", ADMIN))
        # The controller manager ends when the API server is not ready within ten seconds, which a busy machine needs.
        self.processes.wait_ready("kube-apiserver", self.api.ready, _READY_SECONDS)
        if self._controllers:
            more = ("--enable-hostpath-provisioner=true", *self._flags.get("kube-controller-manager", ()))
            components.start_controller_manager(self.processes, at, authority, *more, own_accounts=False)
            components.start_scheduler(self.processes, at, authority, *self._flags.get("kube-scheduler", ()))
        if self._controllers:
            self._make_storage_class()
            path = "/api/v1/namespaces/default/serviceaccounts/default"
            self.processes.wait_ready("kube-controller-manager", lambda: self.api.exists(path), _READY_SECONDS)
        if self._kwok:
            stages = kwok.pod_stages() if self._stages is None else self._stages
            kwok.start(self.processes, self.folder, self.kubeconfig, stages)
            kwok.make_node(self.api, "fake-0")
            self.processes.wait_ready("kwok", lambda: self._node_ready("fake-0"), _READY_SECONDS)

    def _make_storage_class(self) -> None:
        self.api.apply(
            f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}",
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": STORAGE_CLASS,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "kubernetes.io/host-path",
            },
        )

    def _node_ready(self, name: str) -> bool:
        conditions = self.api.get(f"/api/v1/nodes/{name}").get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _guard(self, identity: Identity) -> None:
        """Tell the watchdog of a process that it must end if this one ends without `stop`: its input closes then."""
        if self._watchdog is None:
            self._watchdog = subprocess.Popen(
                ["sh", "-c", _WATCHDOG, self.folder],
                text=True,
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        assert self._watchdog.stdin
        self._watchdog.stdin.write(f"{identity.pid}\n")
        self._watchdog.stdin.flush()

    def stop(self) -> None:
        """End every process and remove the folder; again is harmless."""
        volumes = self._volumes()
        for name in ("kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            self.processes.stop(name, grace=0.0)  # Nothing of it is kept, so nothing needs to end in order.
        if self._watchdog:
            self._watchdog.communicate("stopped\n")
            self._watchdog = None
        for volume in volumes:
            shutil.rmtree(volume, ignore_errors=True)
        with contextlib.suppress(OSError):  # Not empty: another control plane's.
            _VOLUMES.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _volumes(self) -> list[Path]:
        if not self._controllers or not self.processes.running("kube-apiserver"):
            return []
        try:
            items = self.api.get("/api/v1/persistentvolumes")["items"]
        except OSError:
            return []
        folders = [Path(item["spec"].get("hostPath", {}).get("path", "/")) for item in items]
        return [path for path in folders if path.parent == _VOLUMES]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
