"""Show what hostile tenants do to another one's jobs: python -m dev.bench_load [--pods 1000 --trainers 500 ...].

One control plane on this machine with fake nodes, and the operator's process with the rights of the chart. Printed: the
time to the first pod of jobs without the load and under it; that of plain Jobs, which no operator of ours has part in,
and of jobs of another operator that does not watch the hostile tenants (the load takes CPU from all, and from the API
server); the process's memory, and its liveness probes.
"""

import argparse
import asyncio
import statistics
import tempfile
from dataclasses import fields
from pathlib import Path

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from dev.cluster import kwok
from dev.cluster.controlplane import ControlPlane
from dev.cluster.say import say
from hone.api.crds import crds
from hone.runtime.client import Client
from hone.runtime.metrics import Metrics
from tests.chart.conftest import manifests_of
from tests.integration.hostile import Load, Measured, measure, within
from tests.integration.identity import install
from tests.integration.kubelet import stages
from tests.integration.support import Cluster, object_of

TRAINERS_PER_NODE = 200


async def run(plane: ControlPlane, load: Load) -> Measured:
    """Measure on a fresh control plane."""
    with tempfile.TemporaryDirectory() as folder:
        identity = install(plane.api, plane.kubeconfig, manifests_of({}, Path(folder)), Path(folder))
        configuration = Configuration()
        configuration.retries = False
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(plane.kubeconfig), client_configuration=configuration
        )
        client = Client(ApiClient(configuration), Metrics(), field_manager="bench")
        for name in ("honest", "hostile", "control"):
            await client.create("", object_of("v1", "Namespace", name))
        honest = Cluster(client, configuration, "honest", plane.kubeconfig, identity.kubeconfig)
        try:
            return await measure(honest, within(honest, "hostile"), within(honest, "control"), load, say)
        finally:
            await client.close()


def show(load: Load, measured: Measured) -> None:
    """Print the figures."""
    say(f"{load}")
    for name, seconds in (
        ("s to the first pod, quiet", measured.quiet),
        ("s to the first pod, loaded", measured.loaded),
        ("s to the first pod, loaded, of an operator that does not watch the hostile tenants", measured.control),
        ("s to the pod of a plain Job, quiet", measured.plain_quiet),
        ("s to the pod of a plain Job, loaded", measured.plain_loaded),
        ("s of CPU of the operator until then", measured.cpu),
        ("s of CPU of the other operator until then", measured.control_cpu),
    ):
        listed = ", ".join(f"{each:.2f}" for each in seconds)
        print(f"  {name}: median {statistics.median(seconds):.2f} ({listed})")
    print(
        f"  loaded to quiet: {measured.ratio:.2f}, of a plain Job {measured.plain_ratio:.2f}; "
        f"to the other operator at that time: {measured.ratio_to_control:.2f}"
    )
    print(f"  memory, MiB: {statistics.median(measured.resident):.0f} in the median, {measured.peak:.0f} at most")
    slowest = max(measured.probes)
    failed = f"{len(measured.failed)} failed, at most {measured.in_a_row} in a row"
    print(f"  {len(measured.probes)} liveness probes, the slowest {slowest:.2f} s; {failed}")
    print(f"  the clients: {measured.done}", flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for each in fields(Load):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    load = Load(**vars(parser.parse_args()))
    with ControlPlane(controllers=True, kwok=True, stages=stages()) as plane:
        for number in range(load.trainers // TRAINERS_PER_NODE):
            kwok.make_node(plane.api, f"fake-load-{number}")
        make_kinds(plane)
        show(load, asyncio.run(run(plane, load)))


def make_kinds(plane: ControlPlane) -> None:
    """Let the API server know our kinds."""
    for crd in crds().values():
        plane.api.apply_crd(crd)


if __name__ == "__main__":
    main()
