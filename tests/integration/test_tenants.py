"""Tenants that do what they can against the operator delay no other tenant's job, and cost next to no work."""

import re

import pytest

from hone.api import API_VERSION
from hone.core.observed import Object
from tests.integration.hostile import (
    LIVENESS_SECONDS,
    Load,
    Measured,
    hostile_clients,
    make_load,
    silence,
    watched,
    within,
)
from tests.integration.support import FTJ, Cluster, NewCluster, finetunejob, inputs
from tests.integration.test_process import Process, started

LOAD = Load(pods=30, chain=30, trainers=16, readers=20, connections=1000, jobs=1, seconds=120.0)
LIFE_REQUESTS = 17
"""What a job of three steps costs (`tests/unit/runtime/test_operator.py`)."""
METRICS = ("controller_runtime_reconcile_total", "rest_client_requests_total")
LIFE_RECONCILES = 40
"""Most reconciles of such a job: each event of its Jobs and pods may bring one, and each status one more."""


async def total(process: Process, metric: str) -> float:
    """A counter of the process, summed over its labels."""
    _, text = await process.get(f"{process.metrics}/metrics")
    return sum(float(value) for value in re.findall(rf"^{metric}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


async def unreachable(hostile: Cluster) -> int:
    """How many trainers are known not to answer."""
    conditions = [each for job in await hostile.all(FTJ, API_VERSION) for each in _conditions(job)]
    return sum(each["type"] == "ProgressAvailable" and each["reason"] == "Unreachable" for each in conditions)


def _conditions(job: Object) -> list[Object]:
    return (job.get("status") or {}).get("conditions") or []


@pytest.mark.alone
async def test_silent_trainers_and_crowds_at_the_ports_cost_no_reconciles_and_no_probe_fails(
    new_cluster: NewCluster,
) -> None:
    honest, other = await new_cluster(), await new_cluster()
    hostile, measured = within(honest, other.namespace), Measured()
    await honest.create(*inputs())
    namespaces = (honest.namespace, hostile.namespace)

    async def all_silent() -> bool:
        return await unreachable(hostile) == LOAD.trainers

    with silence():
        async with started(honest, namespaces=namespaces) as process:
            await honest.wait_for("readiness", process.ready)
            await make_load(hostile, LOAD)
            # The pods are read every half second, at first.
            await hostile.wait_for("all to be known to be silent", all_silent, LOAD.seconds)
            before = [await total(process, metric) for metric in METRICS]
            async with watched(process, measured), hostile_clients(process, LOAD, measured):
                await honest.create(finetunejob("honest"))
                await honest.wait_phase(FTJ, "honest", "Succeeded", LOAD.seconds)
            after = [await total(process, metric) for metric in METRICS]
    reconciles, requests = after[0] - before[0], after[1] - before[1]
    assert requests <= LIFE_REQUESTS + 3, "and the revision, now and then"
    assert reconciles <= LIFE_RECONCILES
    assert measured.probes and not measured.failed and max(measured.probes) < LIVENESS_SECONDS
    assert measured.done["answers"] and measured.done["connections"] >= LOAD.connections
