"""Several operators with one Lease: one reconciles, and when it is killed another continues in time."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager

from hone.core.observed import Ref
from tests.integration.identity import NAMESPACE
from tests.integration.kubelet import HOLD
from tests.integration.support import FTJ, Cluster, finetunejob, inputs
from tests.integration.test_life import release
from tests.integration.test_operator_policy import LEASE
from tests.integration.test_process import Process, started

SECONDS = 6
LATE = 10.0
"""How much later than the Lease allows a loaded machine may be, in seconds."""
REF = Ref("coordination.k8s.io/v1", "Lease", LEASE)


def candidate(cluster: Cluster, name: str) -> AbstractAsyncContextManager[Process]:
    """An operator that takes part in the election."""
    lease = {"lease_name": LEASE, "lease_namespace": NAMESPACE, "lease_seconds": str(SECONDS)}
    return started(cluster, pod_name=name, **lease)


async def leads(process: Process) -> bool:
    """Whether its metrics say that it leads."""
    text = (await process.get(f"{process.metrics}/metrics"))[1]
    return f'\nleader_election_master_status{{name="{LEASE}"}} 1.0' in text


async def killed(cluster: Cluster, leader: Process, next_one: Process) -> float:
    """Kill the leader. Returns after how many seconds the next one leads."""
    began = time.monotonic()
    leader.process.kill()
    await leader.process.wait()
    await cluster.wait_for("another leader", lambda: leads(next_one), 60.0, every=0.1)
    return time.monotonic() - began


async def test_a_leader_that_is_killed_is_followed_by_another_which_repeats_nothing(cluster: Cluster) -> None:
    job = finetunejob()
    job["spec"]["compute"]["pod"] = {"annotations": {HOLD: "true"}}
    async with candidate(cluster, "first") as first:
        await cluster.wait_for("a leader", lambda: leads(first))
        async with candidate(cluster, "second") as second:
            await cluster.wait_for("readiness of the one that waits", second.ready)
            assert not await leads(second)
            await cluster.create(*inputs(), job)
            await cluster.wait_for("the first Job", lambda: cluster.all("Job", "batch/v1"))
            assert await killed(cluster, first, second) < SECONDS + LATE
            await cluster.wait_phase(FTJ, "sft", "Training")
            async with candidate(cluster, "third") as third:
                await cluster.wait_for("readiness of the one that waits", third.ready)
                assert await killed(cluster, second, third) < SECONDS + LATE
                await release(cluster)
                done = await cluster.wait_phase(FTJ, "sft", "Succeeded")
                assert [attempt["number"] for attempt in done["status"]["attempts"]] == [1, 1, 1]
                assert len(await cluster.all("Job", "batch/v1")) == 3
                await stolen(cluster, third)


async def stolen(cluster: Cluster, leader: Process) -> None:
    """Another has its Lease: it ends, and does not give back what is not its own."""
    await cluster.client.patch(NAMESPACE, REF, {"spec": {"holderIdentity": "thief"}})
    assert await asyncio.wait_for(leader.process.wait(), SECONDS + LATE) == 1
    live = await cluster.client.get(NAMESPACE, REF)
    assert live and live["spec"]["holderIdentity"] == "thief"
    assert [line["msg"] for line in leader.log if line["level"] == "error"] == [
        f"ending: thief holds the Lease {LEASE}"
    ]
    await cluster.client.delete(NAMESPACE, REF, live["metadata"]["uid"])


async def test_one_that_is_stopped_gives_its_lease_back(cluster: Cluster) -> None:
    async with candidate(cluster, "first") as first:
        await cluster.wait_for("a leader", lambda: leads(first))
        first.process.terminate()
        assert await asyncio.wait_for(first.process.wait(), 60.0) == 0
    live = await cluster.client.get(NAMESPACE, REF)
    assert live and live["spec"]["holderIdentity"] == ""
    await cluster.client.delete(NAMESPACE, REF, live["metadata"]["uid"])
