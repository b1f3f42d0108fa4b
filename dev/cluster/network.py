"""The host's side of the pod network: the bridge, its one masquerade rule, and the removal of everything again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from dev.cluster import deps, paths

# A fixed address: by default a bridge takes the lowest of its ports', so it would change as pods come and go.
BRIDGE_MAC = "0a:58:0a:58:00:01"
COMMENT = "hone dev cluster"
_MARK = ["-m", "comment", "--comment", COMMENT]
MASQUERADE = ["-s", paths.POD_CIDR, "!", "-d", paths.POD_CIDR, *_MARK, "-j", "MASQUERADE"]
FORWARD = [[direction, paths.BRIDGE, *_MARK, "-j", "ACCEPT"] for direction in ("-i", "-o")]
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Answers of a Service's pod on the same bridge must pass iptables, to get the Service's address back.
    "net/bridge/bridge-nf-call-iptables": "1",
}


def run(*command: str) -> str:
    """Standard output of a command.

    Raises RuntimeError with its error output.
    """
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
    return result.stdout


def bridge_exists() -> bool:
    return subprocess.run(["ip", "link", "show", paths.BRIDGE], capture_output=True).returncode == 0


def set_up() -> None:
    """Make the bridge with the host's address on it, let packets through, and hide pods behind the host; idempotent."""
    if not bridge_exists():
        taken = [line for line in run("ip", "-o", "-4", "address").splitlines() if " 10.88." in line]
        if taken:
            sys.exit(
                f"error: the pod network {paths.POD_CIDR} is in use here already (by podman?): {taken[0].strip()}\n"
                "Remove that interface (`ip link delete <name>`) and try again."
            )
        run("ip", "link", "add", paths.BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
    run("ip", "address", "replace", f"{paths.BRIDGE_ADDRESS}/16", "dev", paths.BRIDGE)
    run("ip", "link", "set", paths.BRIDGE, "up")
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys", name)
        if not path.exists():
            subprocess.run(["modprobe", "br_netfilter"], capture_output=True)
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)
    _ensure_rule("nat", "POSTROUTING", MASQUERADE)
    for rule in FORWARD:
        _ensure_rule("filter", "FORWARD", rule)


def _ensure_rule(table: str, chain: str, rule: list[str]) -> None:
    if subprocess.run(["iptables", "-w", "-t", table, "-C", chain, *rule], capture_output=True).returncode:
        run("iptables", "-w", "-t", table, "-A", chain, *rule)


def tear_down() -> None:
    """Remove the pods' interfaces, the bridge and the iptables rules that the cluster created; harmless to repeat."""
    if bridge_exists():
        for port in json.loads(run("ip", "-j", "link", "show", "master", paths.BRIDGE)):
            subprocess.run(["ip", "link", "delete", port["ifname"]], capture_output=True)
        run("ip", "link", "delete", paths.BRIDGE)
    for table in ("nat", "filter", "mangle"):
        saved = subprocess.run(["iptables-save", "-t", table], capture_output=True, text=True).stdout
        rules = removal(table, saved.splitlines())
        if rules:
            command, text = ["iptables-restore", "-w", "--noflush"], "\n".join([*rules, ""])
            subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    _destroy_sets()


def _destroy_sets() -> None:
    """Remove kube-router's sets of addresses, which no rule names any longer; none where ipset is not installed."""
    if not shutil.which("ipset", path=deps.search_path()):
        return
    names = subprocess.run(["ipset", "list", "-n"], capture_output=True, text=True).stdout.split()
    for name in names:
        if name.startswith("KUBE-"):
            subprocess.run(["ipset", "destroy", name], capture_output=True)


def removal(table: str, saved: Iterable[str]) -> list[str]:
    """What iptables-restore must be fed to delete our rules and Kubernetes' chains (KUBE-*) from a saved table."""
    lines = list(saved)
    chains = [line[1:].split()[0] for line in lines if line.startswith(":KUBE-")]
    rules = [
        "-D" + line[2:]
        for line in lines
        if line.startswith("-A ") and not line.startswith("-A KUBE-") and ("-j KUBE-" in line or f'"{COMMENT}"' in line)
    ]
    if not chains and not rules:
        return []
    return [f"*{table}", *rules, *(f"-F {chain}" for chain in chains), *(f"-X {chain}" for chain in chains), "COMMIT"]
