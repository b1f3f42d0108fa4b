"""Show the operator's memory among many jobs on a real API server: python -m dev.bench_memory [--finished 10000].

Two jobs live on a control plane with fake nodes: one to its end, one until it trains. What etcd has of them is copied
under other names, so many times, into the etcd of a control plane without controllers, where nothing changes it.
Printed: the memory of the operator's process at its start and afterwards.
"""

import argparse
import asyncio
import base64
import functools
import itertools
import json
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from dev.bench_load import make_kinds
from dev.cluster.controlplane import ControlPlane
from dev.cluster.say import say
from hone.core import names
from hone.runtime.client import Client
from hone.runtime.metrics import Metrics
from tests.chart.conftest import manifests_of
from tests.integration.hostile import memory
from tests.integration.identity import install
from tests.integration.kubelet import HOLD, stages
from tests.integration.support import FTJ, Cluster, finetunejob, inputs, object_of
from tests.integration.test_process import started

NAMESPACE, FINISHED, RUNNING = "bench", "run-a00000", "run-b00000"
AT_ONCE = 100
"""Objects of a transaction: etcd takes 128."""
UID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
Entry = tuple[bytes, bytes]
"""A key of etcd, and its value."""


class Etcd:
    """The etcd of a control plane, through its gateway for JSON."""

    def __init__(self, plane: ControlPlane) -> None:
        self._url = f"http://127.0.0.1:{plane.etcd_port}/v3/kv"

    def read(self, prefix: bytes) -> list[Entry]:
        """All entries whose keys begin so."""
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        answer = self._call("range", {"key": _text(prefix), "range_end": _text(end)})
        return [(base64.b64decode(each["key"]), base64.b64decode(each["value"])) for each in answer.get("kvs", [])]

    def write(self, entries: list[Entry]) -> None:
        """Put entries, in one transaction."""
        puts = [{"requestPut": {"key": _text(key), "value": _text(value)}} for key, value in entries]
        self._call("txn", {"success": puts})

    def _call(self, what: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(f"{self._url}/{what}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Sample:
    """What etcd has of one job."""

    def __init__(self, entries: list[Entry], name: str, uid: str) -> None:
        self._name, self._uid = name.encode(), uid.encode()
        self._base = names.unique(name, uid).encode()
        self._entries = [entry for entry in entries if self._name in entry[0]]
        self._uids = {uid for _, value in self._entries for uid in UID.findall(value)}

    def __len__(self) -> int:
        return len(self._entries)

    def copies(self, count: int) -> Iterator[Entry]:
        """The entries of so many other jobs. Each text is as long as the one that it replaces: they may be protobuf."""
        for number in range(1, count + 1):
            name = self._name[:-5] + b"%05d" % number
            uids = {uid: uid[:-6] + b"%06d" % number for uid in self._uids}
            base = names.unique(name.decode(), uids[self._uid].decode()).encode()
            changes = {self._base: base, self._name: name, **uids}
            change = functools.partial(_changed, changes, re.compile(b"|".join(changes)))
            yield from ((change(key), change(value)) for key, value in self._entries)


def _changed(changes: dict[bytes, bytes], pattern: re.Pattern[bytes], text: bytes) -> bytes:
    return pattern.sub(lambda match: changes[match[0]], text)


async def _cluster(plane: ControlPlane, folder: Path) -> Cluster:
    identity = install(plane.api, plane.kubeconfig, manifests_of({}, folder), folder)
    configuration = Configuration()
    configuration.retries = False
    await load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(plane.kubeconfig), client_configuration=configuration
    )
    client = Client(ApiClient(configuration), Metrics(), field_manager="bench")
    await client.create("", object_of("v1", "Namespace", NAMESPACE))
    return Cluster(client, configuration, NAMESPACE, plane.kubeconfig, identity.kubeconfig)


async def make_samples(plane: ControlPlane) -> tuple[Sample, Sample]:
    """Let two jobs live: one to its end, and one until it trains."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = await _cluster(plane, Path(folder))
        hold = {"gpusPerNode": 0, "pod": {"annotations": {HOLD: "true"}}}
        async with started(cluster) as process:
            await cluster.wait_for("readiness", process.ready)
            await cluster.create(*inputs(), finetunejob(FINISHED), finetunejob(RUNNING, compute=hold))
            jobs = [
                await cluster.wait_phase(FTJ, name, phase)
                for name, phase in ((FINISHED, "Succeeded"), (RUNNING, "Training"))
            ]
        await cluster.client.close()
    entries = Etcd(plane).read(b"/registry/")
    finished, running = (Sample(entries, job["metadata"]["name"], job["metadata"]["uid"]) for job in jobs)
    return finished, running


async def measure(plane: ControlPlane, samples: tuple[Sample, Sample], counts: tuple[int, int], seconds: float) -> None:
    """Copy the jobs, and watch an operator among them."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = await _cluster(plane, Path(folder))
        await cluster.create(*inputs())
        etcd = Etcd(plane)
        entries = itertools.chain(*(sample.copies(count) for sample, count in zip(samples, counts, strict=True)))
        while some := [*itertools.islice(entries, AT_ONCE)]:
            etcd.write(some)
        say(f"{counts[0]} finished and {counts[1]} running jobs are there")
        began = time.monotonic()
        async with started(cluster, progress_seconds=10.0) as process:
            await cluster.wait_for("readiness", process.ready, seconds=600.0)
            say(f"ready after {time.monotonic() - began:.0f} s: {memory(process):.0f} MiB")
            await asyncio.sleep(seconds)
            say(f"after {seconds:.0f} s: {memory(process):.0f} MiB, {memory(process, 'VmHWM'):.0f} at most")
            _, text = await process.get(f"{process.metrics}/metrics")
            reconciles = re.findall(r"^controller_runtime_reconcile_total\{.*\} \S+$", text, re.MULTILINE)
            say("\n".join(reconciles))
        await cluster.client.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--running", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to watch the operator once it is ready")
    arguments = parser.parse_args()
    with ControlPlane(controllers=True, kwok=True, stages=stages()) as plane:
        make_kinds(plane)
        samples = asyncio.run(make_samples(plane))
    say(f"objects of a finished job and of a running one: {len(samples[0])}, {len(samples[1])}")
    with ControlPlane(controllers=False) as plane:
        make_kinds(plane)
        asyncio.run(measure(plane, samples, (arguments.finished, arguments.running), arguments.seconds))


if __name__ == "__main__":
    main()
