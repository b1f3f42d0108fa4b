"""containerd with the CRI and CNI settings of the cluster, and the registry on loopback that it pulls from."""

import json
import shutil
import subprocess
from pathlib import Path

from dev.cluster import build, deps, paths
from dev.cluster.api import answers
from dev.cluster.processes import Processes

# The CNI library keeps results of plugins here, whatever its configuration says; a killed pod leaves its own behind.
CNI_RESULTS = Path("/var/lib/cni/results")


def cni_config() -> dict[str, object]:
    """The pod network: a bridge that hands out addresses, without the plugins for host ports."""
    return {
        "cniVersion": "0.4.0",
        "name": paths.name(),
        "plugins": [
            {
                "type": "bridge",
                "bridge": paths.BRIDGE,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(paths.run_dir() / "cni"),
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [
                        [{"subnet": paths.POD_CIDR, "rangeStart": "10.88.1.0", "gateway": paths.BRIDGE_ADDRESS}]
                    ],
                },
            }
        ],
    }


def config(sandbox_image: str, cri: bool = True) -> str:
    """containerd's configuration file; without `cri` it is for cleaning its store up, and starts no pod."""
    folder = paths.state()
    return f"""\
version = 2
root = "{paths.containerd_root()}"
state = "{paths.run_dir()}/containerd"
oom_score = 0
disabled_plugins = [{"" if cri else '"io.containerd.grpc.v1.cri", '}"io.containerd.internal.v1.opt"]
[grpc]
address = "{paths.containerd_socket()}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox_image}"
# Root without CAP_SYS_RESOURCE cannot lower an OOM score, and no sandbox would start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
# The registry keeps the layers; a second copy of the trainer's would be five gigabytes.
[plugins."io.containerd.grpc.v1.cri".containerd]
discard_unpacked_layers = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{paths.run_dir()}/runc"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{folder}/hosts"
"""


def start(processes: Processes, sandbox_image: str) -> None:
    """Write the configuration, start containerd, and return when it answers."""
    host = f"http://{paths.REGISTRY}"
    _start(
        processes,
        {
            paths.state() / "containerd.toml": config(sandbox_image),
            paths.state() / "cni" / "10-hone.conflist": json.dumps(cni_config(), indent=1),
            paths.state()
            / "hosts"
            / paths.REGISTRY
            / "hosts.toml": f'server = "{host}"\n[host."{host}"]\ncapabilities = ["pull", "resolve"]\n',
        },
    )


def _start(processes: Processes, files: dict[Path, str]) -> None:
    paths.run_dir().mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = ["containerd", "--config", paths.state() / "containerd.toml"]
    processes.start("containerd", command, {"PATH": deps.search_path()}, files)
    processes.wait_ready("containerd", lambda: _ctr("version").returncode == 0)


def _ctr(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ctr", "--address", str(paths.containerd_socket()), "--namespace", "k8s.io", *arguments],
        capture_output=True,
        text=True,
    )


def forget_containers(processes: Processes) -> None:
    """Delete the records of all pods' containers, whose processes must be gone; images stay. Ends containerd."""
    processes.stop("containerd")
    _forget_networks()
    root = paths.containerd_root()
    if not root.exists():
        return
    cri = root / "io.containerd.grpc.v1.cri"
    if any((cri / kind).is_dir() and any((cri / kind).iterdir()) for kind in ("containers", "sandboxes")):
        _start(processes, {paths.state() / "containerd.toml": config("", cri=False)})
        for container in _ctr("containers", "list", "--quiet").stdout.split():
            _ctr("tasks", "delete", "--force", container)
            _ctr("containers", "delete", container)
        processes.stop("containerd")
        for kind in ("containers", "sandboxes"):
            shutil.rmtree(cri / kind, ignore_errors=True)


def _forget_networks() -> None:
    prefix, interface = f"{paths.name()}-", "-eth0"
    for file in CNI_RESULTS.glob(f"{prefix}*{interface}"):
        sandbox = file.name.removeprefix(prefix).removesuffix(interface)
        file.unlink(missing_ok=True)
        (CNI_RESULTS / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)


def start_registry(processes: Processes) -> None:
    """Start the registry on loopback, plain HTTP, and return when it answers."""
    file = paths.state() / "registry.json"
    paths.registry_root().mkdir(parents=True, exist_ok=True)
    settings = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(paths.registry_root())},
            "delete": {"enabled": True},
            # What a push that was cut off has left.
            "maintenance": {"uploadpurging": {"enabled": True, "age": "24h", "interval": "1h", "dryrun": False}},
        },
        "http": {"addr": paths.REGISTRY},
    }
    command: list[str | Path] = [build.binary("registry"), "serve", file]
    files = {file: json.dumps(settings, indent=1)}  # JSON is YAML.
    processes.start("registry", command, {"OTEL_TRACES_EXPORTER": "none"}, files)
    processes.wait_ready("registry", lambda: registry_has("/v2/"))


def registry_has(path: str) -> bool:
    """Whether the registry answers GET `path` with success, such as "/v2/hone/pause/manifests/<tag>"."""
    types = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    return answers(f"http://{paths.REGISTRY}{path}", {"Accept": types})


def node_image() -> str:
    """The name of the image that holds the pause, volume and probe commands; its tag is the hash of their sources."""
    return f"{paths.REGISTRY}/hone/node:{build.folder('node').name.removeprefix('node-')}"


def push_node_image() -> None:
    """Make the node image and push it, unless the registry has it."""
    name, _, tag = node_image().removeprefix(f"{paths.REGISTRY}/").rpartition(":")
    if registry_has(f"/v2/{name}/manifests/{tag}"):
        return
    container = _buildah("from", "scratch").strip()
    try:
        _buildah("copy", container, *(str(build.binary(command)) for command in build.TOOLS["node"].packages), "/")
        _buildah("config", "--entrypoint", '["/pause"]', container)
        _buildah("commit", "--quiet", container, node_image())
    finally:
        _buildah("rm", container)
    try:
        _buildah("push", "--tls-verify=false", "--quiet", node_image(), f"docker://{node_image()}")
    finally:
        _buildah("rmi", node_image())


def _buildah(*arguments: str) -> str:
    result = subprocess.run(["buildah", *arguments], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"`buildah {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout
