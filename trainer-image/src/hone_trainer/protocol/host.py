"""What the container may use of its host, and how it was treated: CPUs, and processes killed for memory."""

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_QUOTAS = [
    # cgroup v2: "<quota> <period>" in one file. v1: two files.
    ("/sys/fs/cgroup/cpu.max", None),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
]
_MEMORY_FILES = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
_OOM_FILES = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]


def cpus() -> int:
    """CPUs that this container may use: its affinity, cut to its cgroup's quota, at least 1."""
    count = len(os.sched_getaffinity(0))
    for quota_file, period_file in _QUOTAS:
        try:
            words = Path(quota_file).read_text().split()
            if period_file:
                words += Path(period_file).read_text().split()
            if words[0].isdigit():
                count = min(count, math.ceil(int(words[0]) / int(words[1])))
        except (OSError, ValueError, IndexError):
            continue
    return max(1, count)


def oom_kills(files: list[str] | None = None) -> int:
    """How many processes of this container the kernel has killed for memory; 0 where it does not say."""
    for name in files or _OOM_FILES:
        try:
            lines = Path(name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.strip().isdigit():
                return int(value)
    return 0


def rss_bytes(pid: int) -> int | None:
    """Resident memory of a process in bytes, or None where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def anonymous_bytes(pid: int) -> int | None:
    """Memory of a process that no file backs, in bytes, or None where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def memory_limit(files: list[str] | None = None) -> int:
    """Memory that this container may take, in bytes: its cgroup's limit, or all that the host has."""
    total = int(Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0]) * 1024
    for name in files or _MEMORY_FILES:
        with contextlib.suppress(OSError):
            text = Path(name).read_text().strip()
            if text.isdigit():
                return min(int(text), total)
    return total


def own_memory(name: str) -> int:
    """A figure of this process's memory in bytes, as /proc/self/status names it: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}")


def reset_peak() -> None:
    """Reset VmHWM to what this process takes now, where the kernel allows that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a process in seconds, user and system, or None where it is gone."""
    try:
        # The command's name, in parentheses, may hold spaces: count fields after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


@dataclass(frozen=True)
class Usage:
    """CPU time, and bytes read and written, of a process and those that it has started."""

    cpu_seconds: float = 0.0
    io_bytes: int = 0


def usage(processes: Mapping[int, int]) -> dict[int, Usage]:
    """What processes and their descendants have used so far, under the keys that they are given with.

    What has ended is left out, and so are bytes where the kernel does not show them.
    """
    started: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                started[parent].append(int(entry.name))
    totals = {}
    for key, process in processes.items():
        family = [process]
        for pid in family:
            family.extend(started[pid])
        totals[key] = Usage(sum(cpu_seconds(pid) or 0.0 for pid in family), sum(map(_io_bytes, family)))
    return totals


def _io_bytes(pid: int) -> int:
    """Bytes that a process has asked for and written, and those that the kernel fetched for its mapped files."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        figures = {name: int(value) for name, _, value in (line.partition(":") for line in lines)}
        return figures["rchar"] + figures["wchar"] + figures["read_bytes"]
    except (OSError, KeyError, ValueError):
        return 0


def children(parent: int) -> list[int]:
    """The direct children of a process, zombies included."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    processes.append(int(entry.name))
            except (OSError, IndexError, ValueError):
                continue
    return processes


def rank_processes(torchrun: int) -> dict[int, int]:
    """The process of each rank that a torchrun has started, by rank."""
    processes = {}
    for pid in children(torchrun):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for entry in environment:
            name, _, value = entry.partition(b"=")
            if name == b"RANK" and value.isdigit():
                processes[int(value)] = pid
    return processes
