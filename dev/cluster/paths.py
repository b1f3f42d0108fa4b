"""Where the local cluster keeps its files, and the addresses and names that it answers to."""

import hashlib
import os
from pathlib import Path

BRIDGE = "cni0"
BRIDGE_ADDRESS = "10.88.0.1"
POD_CIDR = "10.88.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
REGISTRY = "127.0.0.1:5005"
CLUSTER_DOMAIN = "cluster.local"
NODE_NAME = "hone"
SYSTEM_NAMESPACE = "kube-system"

# What must not go through a proxy that the environment names.
NO_PROXY = ",".join(["127.0.0.1", "localhost", POD_CIDR, SERVICE_CIDR, ".svc", f".{CLUSTER_DOMAIN}"])

TOOL_SOURCES = Path(__file__).resolve().parent / "tools"


def no_proxy() -> dict[str, str]:
    """NO_PROXY, in both spellings, with the cluster's addresses added to what the environment has."""
    configured = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    value = f"{configured},{NO_PROXY}" if configured and NO_PROXY not in configured else configured or NO_PROXY
    return {"NO_PROXY": value, "no_proxy": value}


def cache() -> Path:
    """The folder outside the work tree that all clones share: $HONE_CACHE, by default ~/.cache/hone."""
    return Path(os.environ.get("HONE_CACHE") or Path.home() / ".cache" / "hone").absolute()


def name() -> str:
    """What the cluster's folder in /run, its cgroup and its pod network are called.

    Clusters of two caches on one machine, in network namespaces of their own, must not end each other's pods, so only
    the usual cache has the plain name. The cgroup holds every pod's processes and nothing else.
    """
    usual = Path.home() / ".cache" / "hone"
    return "hone" if cache() == usual else f"hone-{hashlib.sha256(str(cache()).encode()).hexdigest()[:8]}"


def run_dir() -> Path:
    """containerd's sockets and mounts: names of sockets must be short (108 bytes), so they are not in the cache."""
    return Path("/run") / name()


def containerd_socket() -> Path:
    return run_dir() / "containerd.sock"


def state() -> Path:
    """What one life of the cluster needs (certificates, etcd, kubelet, volumes, logs); `down` leaves only the logs."""
    return cache() / "cluster"


def logs() -> Path:
    return state() / "logs"


def pids() -> Path:
    return state() / "pids"


def certs() -> Path:
    return state() / "certs"


def kubeconfig() -> Path:
    """The administrator's kubeconfig."""
    return state() / "kubeconfig"


def tools() -> Path:
    """Built binaries, one folder for each tool's sources; they outlive every cluster."""
    return cache() / "tools"


def containerd_root() -> Path:
    """containerd's image store; it outlives the cluster, so that images are unpacked once."""
    return cache() / "containerd"


def registry_root() -> Path:
    """The registry's blobs; they outlive the cluster."""
    return cache() / "registry"
