"""Measure what lives of three Jobs cost the API server: python -m dev.bench_operator [--jobs 50 200].

One control plane on this machine with fake nodes that end each pod at once, and one operator in this process. Printed:
requests a life by verb and kind, jobs per second, the time
from the creation of a job to that of its trainer pod, and the process's memory.
"""

import argparse
import asyncio
import functools
import statistics
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from dev.cluster.controlplane import ControlPlane
from dev.cluster.say import wait_until
from hone.api import API_VERSION
from hone.api.crds import crds
from hone.core.kinds import KINDS
from hone.core.network import NetworkPeers
from hone.core.observed import Object
from hone.core.settings import Settings
from hone.runtime.client import Client
from hone.runtime.metrics import Metrics
from hone.runtime.operator import Operator
from hone.runtime.options import Options
from tests.integration.kubelet import stages
from tests.integration.support import FTJ, finetunejob, inputs, object_of

SECONDS = 900.0


def resident_mib() -> float:
    """Memory of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


async def measure(configuration: Configuration, jobs: int, namespaces: int, number: int) -> None:
    """Let so many jobs live at once, and print what that took."""
    client = Client(ApiClient(configuration), Metrics(), field_manager="bench")
    names = [f"bench-{number}-{each}" for each in range(namespaces)]
    for name in names:
        await client.create("", object_of("v1", "Namespace", name))
        for obj in inputs():
            await client.create(name, obj)
    options = Options(settings=Settings(network_policies=NetworkPeers()), watch_namespaces=tuple(names))
    operator = Operator(KINDS, configuration, options)
    operator.start()
    idle, began = resident_mib(), time.monotonic()
    for each in range(jobs):
        await client.create(names[each % namespaces], finetunejob(f"run-{each}"))
    created = time.monotonic() - began
    peak = idle
    done: list[Object] = []
    while len(done) < jobs and time.monotonic() - began < SECONDS:
        await asyncio.sleep(2.0)
        peak = max(peak, resident_mib())
        live = [obj for name in names for obj in await client.list(name, API_VERSION, FTJ, "")]
        done = [obj for obj in live if (obj.get("status") or {}).get("phase") == "Succeeded"]
    seconds = time.monotonic() - began
    await asyncio.sleep(3.0)
    calls = Counter(operator.client.calls)
    await operator.stop()
    waits = [_wait(obj) for obj in done]
    rate, median = len(done) / seconds, statistics.median(waits)
    print(
        f"{jobs} jobs in {namespaces} namespaces: {len(done)} succeeded in {seconds:.0f} s (created in {created:.0f} s)"
    )
    print(f"  jobs/s {rate:.2f}; s from creation to training: median {median:.1f}, last {max(waits):.0f}")
    print(f"  requests a life {calls.total() / jobs:.1f}; memory MiB {idle:.0f} idle, {peak:.0f} at most", flush=True)
    for (verb, kind), count in calls.most_common():
        print(f"    {count / jobs:6.2f} {verb} {kind}")
    await client.close()


def _wait(job: Object) -> float:
    """Seconds from the creation of a job to that of training's Job."""
    begin, start = job["metadata"]["creationTimestamp"], job["status"]["startTime"]
    return (datetime.fromisoformat(start) - datetime.fromisoformat(begin)).total_seconds()


async def run(plane: ControlPlane, sizes: list[int], namespaces: int) -> None:
    """Measure each size in turn."""
    configuration = Configuration()
    configuration.retries = False
    await load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(plane.kubeconfig), client_configuration=configuration
    )
    for number, jobs in enumerate(sizes):
        await measure(configuration, jobs, namespaces, number)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[50, 200], help="jobs at once; several: one after another"
    )
    parser.add_argument("--namespaces", type=int, default=1)
    arguments = parser.parse_args()
    with ControlPlane(controllers=True, kwok=True, stages=stages()) as plane:
        for crd in crds().values():
            name = crd["metadata"]["name"]
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
            plane.api.apply(path, crd)
            wait_until(functools.partial(_established, plane, path), f"{name} being established", 120)
        asyncio.run(run(plane, arguments.jobs, arguments.namespaces))


def _established(plane: ControlPlane, path: str) -> bool:
    conditions = plane.api.get(path).get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


if __name__ == "__main__":
    main()
