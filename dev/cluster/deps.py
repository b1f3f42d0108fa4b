"""The Debian packages that the cluster and the images need, installed when they are missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from dev.cluster import paths
from dev.cluster.say import step
from dev.lock import locked

# What is looked for (a command in PATH, or a file), and the package that brings it.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "etcd": "etcd-server",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "openssl": "openssl",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "lua5.1": "lua5.1",
}

LOCK_SECONDS = 600
"""How long apt-get waits for another program that installs packages, such as a machine's own upgrades."""


def missing(only: Iterable[str] | None = None) -> list[str]:
    """Names of the packages whose command or file, of those in `only` (default all), is missing."""
    names = PACKAGES if only is None else only
    return sorted({PACKAGES[name] for name in names if not _is_here(name)})


def _is_here(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name, path=search_path()) is not None


def search_path() -> str:
    """PATH with the administrator's folders, which some shells leave out."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def ensure(only: Iterable[str] | None = None) -> None:
    """Install what is missing of `only` (default all) with apt-get; none of its services is started.

    Raises SystemExit when something is missing and this is not root on a Debian, or apt-get fails.
    """
    if not missing(only):
        return
    with locked(paths.cache() / ".deps.lock", "another command that installs Debian packages"):
        _install(missing(only))
    if still := missing(only):
        sys.exit(f"error: apt-get installed {', '.join(still)}, but not the commands; PATH is {search_path()}")


def _install(absent: list[str]) -> None:
    """Install the packages; none if another command has installed them meanwhile."""
    if not absent:
        return
    if os.geteuid() != 0:
        sys.exit(f"error: missing {', '.join(absent)}: run this once as root, or `apt-get install` them")
    if not shutil.which("apt-get"):
        sys.exit(f"error: missing {', '.join(absent)}, and no apt-get is here: use Debian 12, or install them")
    # A policy-rc.d that answers 101 keeps Debian from starting containerd, etcd and prometheus as services.
    policy = Path("/usr/sbin/policy-rc.d")
    own_policy = not policy.exists()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        if own_policy:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        with step(f"installing Debian packages: {', '.join(absent)}"):
            for command in (["update"], ["install", "-y", "--no-install-recommends", *absent]):
                result = subprocess.run(
                    ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}", *command],
                    env=environment,
                    text=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                if result.returncode:
                    sys.exit(f"error: apt-get {command[0]} failed:\n{result.stdout[-3000:]}")
    finally:
        if own_policy:
            policy.unlink()


def check_machine() -> None:
    """Raises SystemExit when the cluster cannot run here at all."""
    if sys.platform != "linux":
        sys.exit("error: the local cluster needs Linux (Debian 12); elsewhere set KUBECONFIG to a cluster of yours")
    if os.geteuid() != 0:
        sys.exit("error: the local cluster needs root: it makes interfaces, mounts and cgroups. Run it again as root.")
