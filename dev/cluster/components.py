"""etcd, API server, controller manager and scheduler, with the flags that the cluster and the tests share."""

from dataclasses import dataclass
from pathlib import Path

from dev.cluster import build, paths
from dev.cluster.certs import Authority, Subject, server_names
from dev.cluster.processes import Processes

ADMIN = Subject("hone-admin", ("system:masters",))


@dataclass(frozen=True)
class Endpoint:
    """Where a control plane listens and keeps its data. `bind` may be 0.0.0.0; `advertise` may not."""

    folder: Path
    bind: str
    advertise: str
    port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def server(self) -> str:
        return f"https://{self.advertise}:{self.port}"


def start_etcd(processes: Processes, at: Endpoint) -> None:
    """etcd without fsync: its data never has to survive the machine."""
    client, peer = f"http://127.0.0.1:{at.etcd_port}", f"http://127.0.0.1:{at.etcd_peer_port}"
    processes.start(
        "etcd",
        [
            "etcd",
            "--name=hone",
            f"--data-dir={at.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--logger=zap",
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=hone={peer}",
            "--quota-backend-bytes=4294967296",
            "--auto-compaction-mode=revision",
            "--auto-compaction-retention=20000",
        ],
    )


def start_apiserver(processes: Processes, at: Endpoint, authority: Authority, *extra: str) -> None:
    """The API server, with node and role-based authorization and the aggregation layer (Kueue's visibility API)."""
    addresses = dict.fromkeys(["127.0.0.1", at.advertise, paths.API_SERVICE_ADDRESS])
    certificate, key = authority.issue("apiserver", Subject("kube-apiserver", (), server_names(*addresses)))
    kubelet_client = Subject("kube-apiserver-kubelet", ("system:masters",))
    kubelet_certificate, kubelet_key = authority.issue("apiserver-kubelet", kubelet_client)
    proxy_certificate, proxy_key = authority.issue("front-proxy", Subject("front-proxy"))
    tokens = authority.signing_key("service-accounts")
    processes.start(
        "kube-apiserver",
        [
            build.binary("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{at.etcd_port}",
            f"--bind-address={at.bind}",
            f"--advertise-address={at.advertise}",
            f"--secure-port={at.port}",
            f"--service-cluster-ip-range={paths.SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={authority.certificate}",
            f"--kubelet-client-certificate={kubelet_certificate}",
            f"--kubelet-client-key={kubelet_key}",
            f"--kubelet-certificate-authority={authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={tokens}",
            f"--service-account-signing-key-file={tokens}",
            f"--requestheader-client-ca-file={authority.certificate}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--enable-aggregator-routing=true",
            f"--proxy-client-cert-file={proxy_certificate}",
            f"--proxy-client-key-file={proxy_key}",
            "--profiling=false",
            *extra,
        ],
    )


def start_controller_manager(
    processes: Processes, at: Endpoint, authority: Authority, *extra: str, own_accounts: bool = True
) -> None:
    """All controllers, each with a service account of its own, or, to start seconds sooner, as one administrator."""
    subject = Subject("system:kube-controller-manager", () if own_accounts else ("system:masters",))
    file = at.folder / "controller-manager.kubeconfig"
    kubeconfig = authority.kubeconfig(file, at.server, "controller-manager", subject)
    processes.start(
        "kube-controller-manager",
        [
            build.binary("kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
            f"--use-service-account-credentials={str(own_accounts).lower()}",
            "--profiling=false",
            f"--root-ca-file={authority.certificate}",
            f"--service-account-private-key-file={authority.signing_key('service-accounts')}",
            f"--cluster-signing-cert-file={authority.certificate}",
            f"--cluster-signing-key-file={authority.key}",
            f"--flex-volume-plugin-dir={at.folder / 'volume-plugins'}",
            *extra,
        ],
    )


def start_scheduler(processes: Processes, at: Endpoint, authority: Authority, *extra: str) -> None:
    kubeconfig = authority.kubeconfig(
        at.folder / "scheduler.kubeconfig", at.server, "scheduler", Subject("system:kube-scheduler")
    )
    processes.start(
        "kube-scheduler",
        [
            build.binary("kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
            "--profiling=false",
            *extra,
        ],
    )
