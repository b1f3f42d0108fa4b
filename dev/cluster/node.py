"""The node: kubelet, kube-proxy, and kube-router, which enforces NetworkPolicies and does nothing else."""

import json
from pathlib import Path
from typing import Any

from dev.cluster import build, deps, paths
from dev.cluster.certs import Authority, Subject
from dev.cluster.processes import Processes

KUBELET_PORT = 10250
KUBELET_HEALTH_PORT = 10248
FIREWALL_HEALTH_PORT = 20244
CGROUP_MOUNT = Path("/sys/fs/cgroup")


def cgroup_folders() -> list[Path]:
    """The cluster's cgroup in the unified hierarchy, or in each of version 1's."""
    if (CGROUP_MOUNT / "cgroup.controllers").exists():
        return [CGROUP_MOUNT / paths.name()]
    return [folder / paths.name() for folder in sorted(CGROUP_MOUNT.iterdir()) if (folder / "cgroup.procs").exists()]


def make_cgroup() -> None:
    """The cgroup that all pods live in; kubelet expects it to exist."""
    for folder in cgroup_folders():
        folder.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # Version 1 starts them empty, and then takes no process.
            if (folder / file).exists() and not (folder / file).read_text().strip():
                (folder / file).write_text((folder.parent / file).read_text())


def kubelet_config(authority: Authority, certificate: Path, key: Path) -> dict[str, Any]:
    folder = paths.state()
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": paths.BRIDGE_ADDRESS,
        "port": KUBELET_PORT,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket()}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{paths.name()}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [paths.BRIDGE_ADDRESS],
        "clusterDomain": paths.CLUSTER_DOMAIN,
        "resolvConf": "/etc/resolv.conf",
        # Shared disks are often over 80 % full, where the defaults report pressure and delete images.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "serializeImagePulls": False,
        "maxPods": 110,
        "oomScoreAdj": own_oom_score(),
        "logging": {"verbosity": 1},
    }


def own_oom_score() -> int:
    """This process's OOM score adjustment: root without CAP_SYS_RESOURCE cannot go below it."""
    return int(Path("/proc/self/oom_score_adj").read_text())


def start_kubelet(processes: Processes, authority: Authority, server: str) -> None:
    folder = paths.state()
    subject = Subject(
        f"system:node:{paths.NODE_NAME}", ("system:nodes",), (f"DNS:{paths.NODE_NAME}", f"IP:{paths.BRIDGE_ADDRESS}")
    )
    certificate, key = authority.issue("kubelet", subject)
    kubeconfig = authority.kubeconfig(folder / "kubelet.kubeconfig", server, "kubelet", subject)
    file = folder / "kubelet.json"
    make_cgroup()
    command: list[str | Path] = [
        build.binary("kubelet"),
        f"--config={file}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={folder / 'kubelet'}",
        f"--hostname-override={paths.NODE_NAME}",
        f"--node-ip={paths.BRIDGE_ADDRESS}",
    ]
    files = {file: json.dumps(kubelet_config(authority, certificate, key), indent=1)}
    processes.start("kubelet", command, {"PATH": deps.search_path()}, files)


def start_proxy(processes: Processes, authority: Authority, server: str) -> None:
    folder = paths.state()
    kubeconfig = authority.kubeconfig(folder / "proxy.kubeconfig", server, "proxy", Subject("system:kube-proxy"))
    file = folder / "proxy.json"
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": paths.POD_CIDR,
        "hostnameOverride": paths.NODE_NAME,
        "bindAddress": "0.0.0.0",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "oomScoreAdj": own_oom_score(),
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    processes.start(
        "kube-proxy",
        [build.binary("kube-proxy"), f"--config={file}"],
        {"PATH": deps.search_path()},
        {file: json.dumps(config, indent=1)},
    )


def start_firewall(processes: Processes, authority: Authority, server: str) -> None:
    """kube-router with its firewall alone: pods have their addresses from CNI, and Services are kube-proxy's."""
    file = paths.state() / "firewall.kubeconfig"
    # It reads nodes, namespaces, pods, services and policies, for which no built-in role is made.
    subject = Subject("kube-router", ("system:masters",))
    processes.start(
        "kube-router",
        [
            build.binary("kube-router"),
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--enable-cni=false",
            f"--kubeconfig={authority.kubeconfig(file, server, 'firewall', subject)}",
            f"--hostname-override={paths.NODE_NAME}",
            f"--service-cluster-ip-range={paths.SERVICE_CIDR}",
            f"--health-port={FIREWALL_HEALTH_PORT}",
            "--metrics-port=0",
        ],
        {"PATH": deps.search_path()},
    )
