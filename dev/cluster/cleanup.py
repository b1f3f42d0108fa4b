"""Ends and removes everything that the cluster created on this machine, whatever its state; images and logs stay."""

import os
import shutil
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

from dev.cluster import containerd, network, node, paths
from dev.cluster.processes import Identity, Processes, end, identify
from dev.cluster.say import wait_until

# What depends on others is ended before them.
# Without etcd the API server takes a minute to end, for the sake of data that is thrown away.
STOP_GRACE = 3.0
STOP_ORDER = (
    "kubelet",
    "kube-proxy",
    "kube-router",
    "local-path-provisioner",
    "coredns",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
    "registry",
    "containerd",
)


def tear_down(processes: Processes, keep: Collection[str] = ()) -> None:
    """End the cluster's processes and pods, and remove its mounts, interfaces, rules, cgroups and files; idempotent.

    keep: names of processes that keep running.
    """
    for name in (*STOP_ORDER, *processes.names()):
        if name not in keep:
            processes.stop(name, STOP_GRACE)
    kill_pods()
    containerd.forget_containers(processes)
    unmount(under=[paths.run_dir(), paths.state()])
    network.tear_down()
    remove_cgroups()
    shutil.rmtree(paths.run_dir(), ignore_errors=True)
    remaining = {paths.logs(), *([paths.pids()] if processes.names() else [])}
    for entry in paths.state().iterdir() if paths.state().exists() else ():
        if entry in remaining:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def kill_pods() -> None:
    """End every process in the cluster's cgroup, and the shims that our containerd started."""
    folders = node.cgroup_folders()

    def rest() -> list[Identity]:
        members = {
            int(pid)
            for folder in folders
            if folder.exists()
            for file in folder.rglob("cgroup.procs")
            for pid in _read(file).split()
        }
        return [identity for pid in {*members, *shims()} if (identity := identify(pid))]

    def emptied() -> bool:
        left = rest()
        for identity in left:
            end(identity, grace=0.0)
        return not left

    wait_until(emptied, "the end of the pods' processes", 30)


def shims() -> list[int]:
    """Process IDs of the container shims that belong to our containerd, known by the socket in their command."""
    socket = str(paths.containerd_socket()).encode()
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"containerd-shim" in arguments[0] and socket in arguments:
                pids.append(int(folder.name))
    return pids


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def mounts_under(mountinfo: str, folders: Iterable[Path]) -> list[str]:
    """Mount points at or below the folders in a /proc/self/mountinfo, the last mounted first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    return [
        point
        for point in reversed(points)
        if any(point == str(folder) or point.startswith(f"{folder}/") for folder in folders)
    ]


def unmount(under: Iterable[Path]) -> None:
    """Unmount all that is mounted at or below the folders.

    Raises RuntimeError where something cannot be unmounted: what is below must not be deleted then.
    """
    for point in mounts_under(Path("/proc/self/mountinfo").read_text(), under):
        result = subprocess.run(["umount", "--lazy", point], capture_output=True, text=True)
        if result.returncode and os.path.ismount(point):
            raise RuntimeError(f"cannot unmount {point}: {result.stderr.strip()}")


def remove_cgroups() -> None:
    for folder in node.cgroup_folders():
        if folder.exists():
            for sub in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
                sub.rmdir()
            folder.rmdir()
