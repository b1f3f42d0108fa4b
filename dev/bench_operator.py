"""Measure what jobs cost the API server, side by side: python -m dev.bench_operator [--jobs 50 200 --rounds 2 ...].

The sides are plain Jobs, two plain Jobs one after another, Kubeflow Trainer with JobSet (`dev/peers.py`), and Hone,
whose job is three Jobs. They take turns; each has a temporary control plane of its own, on which fake nodes end every
pod after 0.2 s, and makes all of its jobs at once. Printed are tables; `build/bench_operator.json` has all figures.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from dev import audit
from dev.bench_load import make_kinds
from dev.bench_sides import SIDES, Side
from dev.cluster import kwok
from dev.cluster.controlplane import ControlPlane
from dev.cluster.say import say
from dev.seen import Watch
from dev.uv import ROOT
from hone.core.observed import Object
from hone.runtime.client import Client
from hone.runtime.metrics import Metrics
from tests.integration.support import inputs, object_of

RESULT = ROOT / "build" / "bench_operator.json"
NAMESPACE = "bench"
AT_ONCE = 16
"""Jobs that are created at a time."""
JOBS_PER_NODE = 50
FAST = ("--kube-api-qps=2000", "--kube-api-burst=4000")
"""For Kubernetes' own controllers, which by default make 20 requests a second: all sides would wait for them."""


@dataclass
class Run:
    """What one side did with so many jobs at once.

    Attributes:
        side: the side's name.
        jobs: how many.
        seconds: until the last one was done.
        created: seconds until the last one was created.
        pods: seconds from the creation of each job to that of its trainer's pod, sorted.
        own: requests of the side's operators, a job, by verb and resource.
        all: requests of everybody, a job.
        api_cpu: seconds of CPU of the API server, a job.
        own_cpu: those of the side's operators.
        idle: memory of the side's operators before the first job, in MiB.
        peak: the most that they had.
        load: the machine's load before.
    """

    side: str
    jobs: int
    seconds: float
    created: float
    pods: list[float]
    own: dict[str, float]
    all: float
    api_cpu: float
    own_cpu: float
    idle: float
    peak: float
    load: float


class Jobs:
    """The jobs of a run, and when what happened to each was seen.

    Args:
        side: makes the jobs, and reads the objects.
        client: creates them.
    """

    def __init__(self, side: Side, client: Client) -> None:
        self._side, self._client = side, client
        self._created: dict[str, float] = {}
        self._pods: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._followed: set[str] = set()
        self.changed = asyncio.Event()

    async def create(self, count: int) -> None:
        """Create so many, several at a time."""
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                job = self._side.job(f"run-{number}")
                self._created[job["metadata"]["name"]] = time.monotonic()
                await self._client.create(NAMESPACE, job)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    def saw_pod(self, pod: Object) -> None:
        """Take in an event of a pod."""
        if name := self._side.trains(pod):
            self._pods.setdefault(name, time.monotonic())

    async def saw_job(self, job: Object) -> None:
        """Take in an event of a job; what follows the first of two is created here."""
        name = job["metadata"]["name"]
        if not self._side.is_done(job):
            return
        following = self._side.next(job)
        if following is None:
            self._done.setdefault(self._side.first(name), time.monotonic())
            self.changed.set()
        elif name not in self._followed:
            self._followed.add(name)
            await self._client.create(NAMESPACE, following)

    def waits(self) -> list[float]:
        """Seconds from the creation of each job to that of its trainer's pod."""
        return sorted(self._pods[name] - began for name, began in self._created.items() if name in self._pods)

    def done(self) -> int:
        """How many are done."""
        return len(self._done)


async def measure(plane: ControlPlane, side: Side, count: int, seconds: float) -> Run:
    """Let one side do so many jobs.

    Raises:
        TimeoutError: they did not end in time; tells how many did.
    """
    configuration = Configuration()
    configuration.retries = False
    await load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(plane.kubeconfig), client_configuration=configuration
    )
    client = Client(ApiClient(configuration), Metrics(), field_manager="bench")
    await client.create("", object_of("v1", "Namespace", NAMESPACE))
    for obj in inputs():
        await client.create(NAMESPACE, obj)
    jobs, load = Jobs(side, client), os.getloadavg()[0]
    async with side.operators(plane) as operators:
        pids = [plane.processes.running(name).pid for name in operators]  # type: ignore[union-attr]
        api = plane.processes.running("kube-apiserver").pid  # type: ignore[union-attr]
        idle, peak = sum(map(memory, pids)), 0.0
        before, own_before, log = cpu(api), sum(map(cpu, pids)), audit.AuditLog(plane.folder.parent)
        async with (
            Watch(configuration, "v1", "Pod", NAMESPACE, jobs.saw_pod),
            Watch(configuration, side.api_version, side.kind, NAMESPACE, jobs.saw_job),
        ):
            began = time.monotonic()
            await jobs.create(count)
            created = time.monotonic() - began
            while jobs.done() < count:
                if time.monotonic() - began > seconds:
                    raise TimeoutError(f"{side.name}: {jobs.done()} of {count} jobs done after {seconds:.0f} s")
                jobs.changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(jobs.changed.wait(), 1.0)
                peak = max(peak, sum(map(memory, pids)))
            took = time.monotonic() - began
        counted = log.count()
        own = Counter({request: number for request, number in counted.items() if request.user in side.users})
        result = Run(
            side.name, count, took, created, jobs.waits(),
            {f"{each.verb} {each.resource}": number / count for each, number in own.most_common()},
            counted.total() / count, (cpu(api) - before) / count, (sum(map(cpu, pids)) - own_before) / count,
            idle, peak, load,
        )  # fmt: skip
    await client.close()
    return result


def memory(pid: int) -> float:
    """Memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(side: Side, count: int, seconds: float) -> Run:
    """Measure on a fresh control plane."""
    with tempfile.TemporaryDirectory(prefix="hone-bench-") as folder:
        flags = {"kube-apiserver": (*audit.flags(Path(folder)), "--enable-aggregator-routing=false")}
        flags |= {"kube-controller-manager": FAST, "kube-scheduler": FAST}
        with ControlPlane(kwok=True, stages=side.stages, folder=Path(folder) / "plane", flags=flags) as plane:
            for number in range(count // JOBS_PER_NODE):
                kwok.make_node(plane.api, f"fake-bench-{number}")
            make_kinds(plane)
            return asyncio.run(measure(plane, side, count, seconds))


def show(runs: list[Run]) -> None:
    """Print a table of each number of jobs: the figures of a side's rounds, separated by slashes."""
    for count in sorted({each.jobs for each in runs}):
        print(f"\n{count} jobs at once")
        print(f"{'':10} {'jobs/s':>14} {'s to trainer pod: first':>24} {'median':>14} {'last':>14} {'requests own':>14}"
              f" {'all':>14} {'API ms':>14} {'MiB idle':>14} {'peak':>14}")  # fmt: skip
        for side in SIDES:
            if rounds := [each for each in runs if (each.side, each.jobs) == (side, count)]:
                columns: list[tuple[list[float], str, int]] = [
                    ([each.jobs / each.seconds for each in rounds], ".2f", 14),
                    ([each.pods[0] for each in rounds], ".2f", 24),
                    ([statistics.median(each.pods) for each in rounds], ".2f", 14),
                    ([each.pods[-1] for each in rounds], ".2f", 14),
                    ([sum(each.own.values()) for each in rounds], ".1f", 14),
                    ([each.all for each in rounds], ".0f", 14),
                    ([1000 * each.api_cpu for each in rounds], ".0f", 14),
                    ([each.idle for each in rounds], ".0f", 14),
                    ([each.peak for each in rounds], ".0f", 14),
                ]
                cells = [f"{' / '.join(format(v, form) for v in values):>{width}}" for values, form, width in columns]
                print(f"{side:10} {' '.join(cells)}")


def show_requests(runs: list[Run]) -> None:
    """Print the requests of each side's operators, a job, in its last run."""
    for side, last in {each.side: each for each in runs if each.own}.items():
        print(f"\n{side}, {last.jobs} jobs: requests of its own a job")
        for request, number in last.own.items():
            if number >= 0.005:
                print(f"  {number:6.2f} {request}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[50, 200], help="jobs at once; several: in turn")
    parser.add_argument("--rounds", type=int, default=2, help="how often the sides take turns (default: 2)")
    parser.add_argument("--sides", nargs="+", choices=[*SIDES], default=[*SIDES])
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long the jobs of a run may take")
    arguments = parser.parse_args()
    runs: list[Run] = []
    for count in arguments.jobs:
        for number in range(arguments.rounds):
            for name in arguments.sides:
                runs.append(each := run(SIDES[name], count, arguments.seconds))
                say(f"round {number + 1}, {name}: {count} jobs in {each.seconds:.1f} s; load {each.load:.1f}")
                _write(runs)
    show(runs)
    show_requests(runs)


def _write(runs: list[Run]) -> None:
    content: dict[str, Any] = {"cores": os.cpu_count(), "runs": [asdict(each) for each in runs]}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
