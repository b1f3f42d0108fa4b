"""The local cluster's repair and removal, on a second cluster in a network namespace of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev.cluster import build, containerd, paths
from dev.cluster.processes import Identity, identify
from dev.cluster.say import wait_until

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
]
POD_SECONDS = "120s"
ROOT = Path(__file__).parents[2]


class Cluster:
    """The second cluster: commands run in its namespaces, with its cache."""

    def __init__(self, holder: int, cache: Path):
        self.enter = ["nsenter", f"--target={holder}", "--net", "--mount", f"--wd={ROOT}"]
        self.cache = cache
        self.environment = {**os.environ, "HONE_CACHE": str(cache), "KUBECONFIG": str(cache / "cluster" / "kubeconfig")}

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [*self.enter, *map(str, command)],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if check and result.returncode:
            pytest.fail(f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
        return result

    def cluster(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dev.cluster", *arguments, check=check)

    def kubectl(self, *arguments: str) -> str:
        return self.run(build.binary("kubectl"), *arguments).stdout

    def kill(self, *names: str) -> None:
        """Kill components as the end of a session would, and wait until they are gone."""
        for name in names:
            known = Identity(**json.loads((self.cache / "cluster" / "pids" / f"{name}.json").read_text()))
            assert identify(known.pid) == known, f"{name} was not running"
            os.kill(known.pid, signal.SIGKILL)
            wait_until(lambda known=known: identify(known.pid) != known, f"the end of {name}", 10)

    def shims(self) -> list[int]:
        """The container shims of this cluster; another's have another socket."""
        pids = []
        for folder in Path("/proc").iterdir():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdecimal() else []
            except OSError:
                continue
            if str(self.run_dir / "containerd.sock").encode() in command and b"shim" in command[0]:
                pids.append(int(folder.name))
        return pids

    def start_pod(self) -> str:
        """Start a pod that stays; returns its UID."""
        self.kubectl("run", "stays", f"--image={containerd.node_image()}")
        self.kubectl("wait", "--for=condition=Ready", "pod/stays", f"--timeout={POD_SECONDS}")
        return self.kubectl("get", "pod", "stays", "-o", "jsonpath={.metadata.uid}")

    @property
    def run_dir(self) -> Path:
        return Path("/run") / self.name

    @property
    def name(self) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HONE_CACHE", str(self.cache))
            return paths.name()

    def leftovers(self) -> list[str]:
        """Whatever on the machine still bears the cluster's name or is in its namespaces."""
        mounts = self.run("cat", "/proc/self/mountinfo").stdout.splitlines()
        links = self.run("ip", "-o", "link").stdout.splitlines()
        rules = self.run("iptables-save").stdout.splitlines()
        return [
            *(line for line in mounts if self.name in line or str(self.cache / "cluster") in line),
            *(line for line in links if ": lo:" not in line),
            *(line for line in rules if line.startswith("-A") or ":KUBE-" in line),
            *(str(folder) for folder in Path("/sys/fs/cgroup").glob(f"**/{self.name}")),
            *(str(path) for path in [self.run_dir] if path.exists()),
            *(f"shim {pid}" for pid in self.shims()),
            *(str(path) for path in (self.cache / "cluster").iterdir() if path.name != "logs"),
            *(str(path) for path in containerd.CNI_RESULTS.glob(f"{self.name}-*")),
        ]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster that is up. Its tools are the usual cache's, but for one's own copy, which may be broken."""
    assert os.geteuid() == 0, "run it as root: it makes network namespaces"
    build.ensure(build.NODE_TOOLS)
    cache = tmp_path_factory.mktemp("cache")
    (cache / "tools").mkdir()
    for folder in map(build.folder, build.NODE_TOOLS):
        if folder == build.folder("node"):
            shutil.copytree(folder, cache / "tools" / folder.name)
        else:
            (cache / "tools" / folder.name).symlink_to(folder)
    # The shell announces itself from inside, or a command might still run outside of the namespaces.
    script = "ip link set lo up && echo inside && exec cat"
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "inside\n"
        second = Cluster(holder.pid, cache)
        try:
            second.cluster("up")
            yield second
        finally:
            second.cluster("down")
            holder.stdin.close()


@pytest.fixture(autouse=True)
def no_pod_of_an_earlier_test(cluster):
    yield
    if cluster.cluster("status", check=False).returncode == 0:
        cluster.kubectl("delete", "pod", "stays", "--ignore-not-found", "--grace-period=1")


def test_a_ready_cluster_is_adopted(cluster):
    assert "ready already" in cluster.cluster("up").stderr


def test_pods_find_each_other_and_share_a_volume(cluster):
    assert "it holds" in cluster.cluster("smoke").stderr


def test_dead_components_are_started_again_and_pods_stay(cluster):
    uid = cluster.start_pod()
    cluster.kill("containerd", "kubelet", "kube-proxy", "kube-scheduler", "coredns")
    assert cluster.cluster("status", check=False).returncode == 1
    assert "repairing" in cluster.cluster("up").stderr
    pod = json.loads(cluster.kubectl("get", "pod", "stays", "-o", "json"))
    assert pod["metadata"]["uid"] == uid
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    cluster.kubectl("exec", "stays", "--", "/probe", "-serve=127.0.0.1:9999", "-linger=0s")


def test_a_broken_tool_is_built_again(cluster):
    volume = cluster.cache / "tools" / build.folder("node").name / "volume"
    whole = volume.read_bytes()
    volume.write_bytes(whole[:1000])
    cluster.kill("registry")
    assert "the checksum of volume is wrong" in cluster.cluster("up").stderr
    assert volume.read_bytes() == whole


def test_without_etcd_the_cluster_starts_afresh_and_its_pods_end(cluster):
    cluster.start_pod()
    assert cluster.shims()
    cluster.kill("etcd")
    cluster.cluster("up")
    assert cluster.kubectl("get", "pods", "--all-namespaces", "-o", "name") == ""
    assert cluster.shims() == []


def test_after_everything_was_killed_it_starts_afresh_and_works(cluster):
    cluster.start_pod()
    cluster.kill(*(file.stem for file in (cluster.cache / "cluster" / "pids").glob("*.json")))
    for pid in cluster.shims():
        os.kill(pid, signal.SIGKILL)
    cluster.cluster("up")
    assert cluster.kubectl("get", "pods", "--all-namespaces", "-o", "name") == ""
    assert "it holds" in cluster.cluster("smoke").stderr


def test_down_leaves_nothing_but_logs_even_with_a_pod_running(cluster):
    cluster.start_pod()
    assert cluster.leftovers() != []
    cluster.cluster("down")
    assert cluster.leftovers() == []
    cluster.cluster("down")
    assert cluster.cluster("status", check=False).returncode == 1


def test_a_taken_port_is_named_and_nothing_is_left(cluster):
    code = "import socket; s = socket.create_server(('127.0.0.1', 6443)); print('bound', flush=True); input()"
    command = [*cluster.enter, sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "bound\n"
        result = cluster.cluster("up", check=False)
        other.stdin.close()
    assert result.returncode == 1
    assert "port 6443 on 127.0.0.1 is taken" in result.stderr
    assert cluster.leftovers() == []
