"""Tenants that do all they can against the operator at once, and what another tenant notices of it."""

import asyncio
import json
import os
import re
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from hone.api import API_VERSION
from hone.contract.runconfig import METRICS_PORT
from hone.core.names import MANAGED_BY, MANAGED_BY_LABEL, OWNER_ANNOTATION, RESOURCE_LABELS, STEP_LABEL, UID_LABEL
from hone.core.observed import Object
from hone.runtime.client import ref_of
from hone.runtime.errors import Conflict, Transient
from tests.integration.kubelet import ADDRESS, HOLD
from tests.integration.support import FTJ, Cluster, finetunejob, inputs, object_of
from tests.integration.test_process import Process, started

SILENT_ADDRESS = f"127.8.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
"""Where pods have their address that do not answer; of this process alone, since others may run the same tests."""
LIVENESS_SECONDS = 5.0
"""The chart's `timeoutSeconds` of the probe."""
LIVENESS_FAILURES = 6
"""The chart's `failureThreshold`."""
STOP_SECONDS = 60.0
"""How long the hostile clients may take to stop."""
PROGRESS_SECONDS = 10.0
"""The chart's default."""
AT_ONCE = 8
"""Requests that the load makes at a time."""


@dataclass(frozen=True)
class Load:
    """What the hostile tenants do at once.

    Attributes:
        pods: ended pods of about 400 KiB, with the labels of Hone's.
        chain: jobs each of which waits for the next one.
        trainers: training jobs whose pods do not answer when they are asked for progress.
        readers: clients that read the metrics without pause.
        connections: connections that are opened at once and send nothing.
        jobs: jobs of the other tenant, one after another, without the load and with it.
        seconds: how long the trainers may take to start.
    """

    pods: int = 1000
    chain: int = 1000
    trainers: int = 500
    readers: int = 100
    connections: int = 10_000
    jobs: int = 5
    seconds: float = 900.0


@dataclass
class Measured:
    """What came of it.

    Attributes:
        quiet: seconds to the first pod of each job without the load.
        loaded: the same with it.
        control: the same at that time, in a namespace of an operator that does not watch the hostile tenants: what the
            machine and the API server add, which the load shares with them here.
        plain_quiet: seconds to the pod of a plain Job without the load: what Kubernetes takes on this machine.
        plain_loaded: the same with it, at the time of each of the first pods.
        cpu: seconds of CPU of the operator until each of these first pods.
        control_cpu: those of the other operator.
        resident: the operator's memory in MiB, as it was seen.
        peak: the most that it ever had.
        probes: seconds that each liveness probe took that was answered.
        failed: the probes that failed.
        in_a_row: the most of them one after the other.
        done: what the hostile clients did.
    """

    quiet: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)
    plain_quiet: list[float] = field(default_factory=list)
    plain_loaded: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    control_cpu: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    peak: float = 0.0
    probes: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    in_a_row: int = 0
    done: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as long the first pod took under the load."""
        return statistics.median(self.loaded) / statistics.median(self.quiet)

    @property
    def plain_ratio(self) -> float:
        """How many times as long the pod of a plain Job took under the load, which no operator of ours had part in."""
        return statistics.median(self.plain_loaded) / statistics.median(self.plain_quiet)

    @property
    def ratio_to_control(self) -> float:
        """How many times as long it took as in the namespace of an operator without the load, at the same time."""
        return statistics.median(self.loaded) / statistics.median(self.control)


def memory(process: Process, what: str = "VmRSS") -> float:
    """Memory of the operator's process in MiB: now, or `VmHWM`: the most that it ever had."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(re.findall(rf"{what}:\s+(\d+)", status)[0]) / 1024


def cpu(process: Process) -> float:
    """Seconds of CPU that the operator's process has used."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hostile_pod(number: int) -> Object:
    """A pod of a tenant that pretends to be one of Hone's, as large as the API server accepts."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    names = [{"matchExpressions": [{"key": "a", "operator": "In", "values": [f"{i:060d}"]}]} for i in range(600)]
    preferred = [{"weight": 1, "preference": preference} for preference in names]
    container = {
        "name": "train",
        "image": "none.invalid/none",
        "securityContext": security,
        "env": [{"name": f"FILLER_{i}", "value": "x" * 4096} for i in range(32)],
    }
    pod = object_of("v1", "Pod", f"hostile-{number}")
    pod["metadata"] |= {
        "labels": {
            MANAGED_BY_LABEL: MANAGED_BY,
            UID_LABEL: f"{number:08x}-0000-4000-8000-000000000000",
            STEP_LABEL: "train",
        },
        "annotations": {
            OWNER_ANNOTATION: f"{FTJ}/waiting-{number}",
            **{f"filler-{i}": "y" * 32_000 for i in range(6)},
        },
    }
    pod["spec"] = {
        "schedulerName": "nobody",
        "restartPolicy": "Never",
        "containers": [container],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
    }
    return pod


ENDED = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "m" * 4096,
    "containerStatuses": [
        {
            "name": "train",
            "image": "none",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": {"exitCode": 64, "reason": "Error", "message": "t" * 4096}},
        }
    ],
}


async def each(items: Iterable[Any], call: Callable[[Any], Awaitable[None]]) -> None:
    """Make a call for each item, several at a time; again where the API server did not answer in time."""
    rest = iter(items)

    async def work() -> None:
        for item in rest:
            while True:
                try:
                    await call(item)
                    break
                except Transient:
                    continue

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def make_load(hostile: Cluster, load: Load, say: Callable[[str], None] = lambda text: None) -> None:
    """The hostile tenants' objects, until all trainers train. An operator must be running."""
    silent = {"annotations": {HOLD: "true", ADDRESS: SILENT_ADDRESS}}
    await hostile.create(*inputs())

    async def create(obj: Object) -> Object:
        try:
            return await hostile.client.create(hostile.namespace, obj)
        except Conflict:  # It was created, but not answered in time.
            live = await hostile.client.get(hostile.namespace, ref_of(obj))
            assert live, obj["metadata"]["name"]
            return live

    async def pod(number: int) -> None:
        obj = await create(hostile_pod(number))
        if (obj.get("status") or {}).get("phase") != ENDED["phase"]:
            await hostile.client.update_status(obj, ENDED)

    async def trainer(number: int) -> None:
        await create(finetunejob(f"silent-{number}", compute={"gpusPerNode": 0, "pod": silent}))

    async def waiting(number: int) -> None:
        await create(finetunejob(f"waiting-{number}", model={"jobRef": {"name": f"waiting-{number + 1}"}}))

    async def all_train() -> bool:
        jobs = await hostile.all(FTJ, API_VERSION)
        return [(job.get("status") or {}).get("phase") for job in jobs].count("Training") == load.trainers

    await each(range(load.trainers), trainer)
    await each(range(load.pods), pod)
    await each(range(load.chain), waiting)
    say("the load is made; waiting for the trainers to train")
    await hostile.wait_for("all silent trainers to train", all_train, load.seconds, every=1.0)
    say("all trainers train")


@contextmanager
def silence() -> Iterator[None]:
    """The address of silent pods: the first connections get no answer, and the rest are not even established."""
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind((SILENT_ADDRESS, METRICS_PORT))
        silent.listen(1)
        yield


async def first_pod(honest: Cluster, name: str) -> float:
    """Seconds from the creation of a job to that of its first pod."""
    return await _until_pod(honest, finetunejob(name), f"{RESOURCE_LABELS[FTJ]}={name}")


async def plain_pod(honest: Cluster, name: str) -> float:
    """Seconds from the creation of a plain Job to that of its pod."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "plain", "image": "none.invalid/none"}]}
    job = object_of("batch/v1", "Job", name, spec={"template": {"spec": pod}})
    return await _until_pod(honest, job, f"job-name={name}")


async def _until_pod(honest: Cluster, obj: Object, selector: str) -> float:
    await honest.create(obj)
    began = time.monotonic()

    async def pods() -> bool:
        return bool(await honest.client.list(honest.namespace, "v1", "Pod", selector))

    await honest.wait_for("the first pod", pods, every=0.02)
    return time.monotonic() - began


@asynccontextmanager
async def watched(process: Process, measured: Measured) -> AsyncIterator[None]:
    """Probe the process as kubelet does, but every second, and look at its memory."""

    async def watch() -> None:
        timeout, row = aiohttp.ClientTimeout(total=LIVENESS_SECONDS), 0
        while True:
            began = time.monotonic()
            try:
                async with (
                    aiohttp.ClientSession(timeout=timeout) as session,
                    session.get(f"{process.probes}/healthz") as response,
                ):
                    if response.status != 200:
                        measured.failed.append(f"HTTP {response.status}")
                measured.probes.append(time.monotonic() - began)
                row = 0
            except (aiohttp.ClientError, TimeoutError) as error:
                if measured.probes:  # until the first answer, it is the startup probe's turn
                    measured.failed.append(f"{type(error).__name__}: {error}")
                    row += 1
                    measured.in_a_row = max(measured.in_a_row, row)
            measured.resident.append(memory(process))
            await asyncio.sleep(1.0)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        measured.peak = memory(process, "VmHWM")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def hostile_clients(process: Process, load: Load, measured: Measured) -> AsyncIterator[None]:
    """Clients that hold the ports of the process, in a process of their own."""
    ports = [url.rpartition(":")[2] for url in (process.metrics, process.probes)]
    clients = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.hostile_clients", *ports,
        f"--readers={load.readers}", f"--connections={load.connections}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "operator/src:."},
    )  # fmt: skip
    try:
        yield
    finally:
        try:
            out, _ = await asyncio.wait_for(clients.communicate(b""), STOP_SECONDS)
            measured.done = json.loads(out)
        finally:
            if clients.returncode is None:
                clients.kill()
                await clients.wait()


async def measure(
    honest: Cluster, hostile: Cluster, control: Cluster, load: Load, say: Callable[[str], None] = lambda text: None
) -> Measured:
    """Run another tenant's jobs without the load and under it, each to its end; under it, in turns with control's."""
    measured, namespaces = Measured(), (honest.namespace, hostile.namespace)
    for cluster in (honest, control):
        await cluster.create(*inputs())
    with silence():
        async with started(honest, namespaces=namespaces, progress_seconds=PROGRESS_SECONDS) as process:
            await honest.wait_for("readiness", process.ready)
            for number in range(load.jobs):
                measured.plain_quiet.append(await plain_pod(honest, f"plain-quiet-{number}"))
                measured.quiet.append(await first_pod(honest, f"quiet-{number}"))
                await honest.wait_phase(FTJ, f"quiet-{number}", "Succeeded", load.seconds)
            say(f"without the load: {measured.quiet}")
            await make_load(hostile, load, say)
        # Another one, which has to read all of it at its start.
        async with (
            started(control, progress_seconds=PROGRESS_SECONDS) as other,
            started(honest, namespaces=namespaces, progress_seconds=PROGRESS_SECONDS) as process,
            watched(process, measured),
        ):
            await honest.wait_for("readiness", other.ready)
            await honest.wait_for("readiness", process.ready)
            say(f"an operator that has read all of it: {memory(process, 'VmHWM'):.0f} MiB at most")
            async with hostile_clients(process, load, measured):
                for number in range(load.jobs):
                    gone = range(number, load.pods, 4 * load.jobs)
                    await each(gone, lambda n: hostile.delete(object_of("v1", "Pod", f"hostile-{n}")))
                    await _one_each(honest, control, process, other, number, measured)
                    for cluster, name in ((honest, "loaded"), (control, "control")):
                        await cluster.wait_phase(FTJ, f"{name}-{number}", "Succeeded", load.seconds)
                say(f"with the load: {measured.loaded}; all jobs have succeeded")
    return measured


async def _one_each(
    honest: Cluster, control: Cluster, process: Process, other: Process, number: int, measured: Measured
) -> None:
    """A job of the honest tenant, then a plain Job, then a job of the control's; each begins at the pod of the last."""
    before = cpu(process)
    measured.loaded.append(await first_pod(honest, f"loaded-{number}"))
    measured.cpu.append(cpu(process) - before)
    measured.plain_loaded.append(await plain_pod(honest, f"plain-loaded-{number}"))
    between = cpu(other)
    measured.control.append(await first_pod(control, f"control-{number}"))
    measured.control_cpu.append(cpu(other) - between)


def within(honest: Cluster, namespace: str) -> Cluster:
    """The same cluster, in another namespace."""
    return replace(honest, namespace=namespace)
