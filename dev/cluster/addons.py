"""Host processes that complete Kubernetes: DNS for pods, and the provisioner of storage class `local-path`."""

import json
import socket
import struct
from pathlib import Path
from typing import Any

from dev.cluster import build, containerd, paths
from dev.cluster.api import Api
from dev.cluster.processes import Processes

DNS_READY_PORT = 8181
PROVISIONER = "rancher.io/local-path"
STORAGE_CLASS = "local-path"

# Which of the cluster's own objects are applied at each `up`, by the URL that they are applied at.
MANIFESTS: dict[str, dict[str, Any]] = {
    f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}": {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    },
    f"/api/v1/namespaces/{paths.SYSTEM_NAMESPACE}/serviceaccounts/local-path": {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "local-path", "namespace": paths.SYSTEM_NAMESPACE},
        "automountServiceAccountToken": False,
    },
}


def corefile(kubeconfig: Path) -> str:
    return f"""\
.:53 {{
    bind {paths.BRIDGE_ADDRESS}
    errors
    health 127.0.0.1:8180
    ready 127.0.0.1:{DNS_READY_PORT}
    kubernetes {paths.CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
    forward . /etc/resolv.conf
}}
"""


def start_dns(processes: Processes) -> None:
    """CoreDNS on the bridge's address. It caches nothing, so that a pod's name is there as soon as the pod is."""
    file = paths.state() / "Corefile"
    command: list[str | Path] = [build.binary("coredns"), "-conf", file]
    processes.start("coredns", command, files={file: corefile(paths.kubeconfig())})


def start_provisioner(processes: Processes) -> None:
    """local-path-provisioner, whose volumes any user ID can write and several pods can share."""
    folder = paths.state()
    config, pod = folder / "local-path.json", folder / "local-path-pod.json"
    files = {
        config: json.dumps(
            {
                "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(folder / "volumes")]}],
                "setupCommand": "/volume",
                "teardownCommand": "/volume",
            }
        ),
        pod: json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "local-path"},
                "spec": {"containers": [{"name": "volume", "image": containerd.node_image()}]},
            }
        ),
    }
    processes.start(
        "local-path-provisioner",
        [
            build.binary("local-path-provisioner"),
            "start",
            f"--config={config}",
            f"--helper-pod-file={pod}",
            f"--provisioner-name={PROVISIONER}",
            f"--namespace={paths.SYSTEM_NAMESPACE}",
            "--service-account-name=local-path",
            "--configmap-name=local-path",
            f"--kubeconfig={paths.kubeconfig()}",
            f"--helper-image={containerd.node_image()}",
        ],
        files=files,
    )


def apply_manifests(api: Api) -> None:
    for path, manifest in MANIFESTS.items():
        api.apply(path, manifest)


def resolves(name: str, server: str = paths.BRIDGE_ADDRESS, port: int = 53) -> bool:
    """Whether the DNS server there has an IPv4 address for `name`."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    query = struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect((server, port))  # So that a closed port is an error at once, not silence.
            connection.send(query)
            answer = connection.recv(512)
        except OSError:
            return False
    return answer[3] & 0x0F == 0 and struct.unpack(">H", answer[6:8])[0] > 0
