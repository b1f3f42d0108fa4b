"""Jobs that read each other's models: applied at once, in any order, and one of them lost on the way."""

import asyncio
from typing import Any

from hone.core.observed import Object
from tests.integration.kubelet import HOLD, SCARCE
from tests.integration.support import FTJ, Cluster, condition, finetunejob, inputs
from tests.integration.test_life import gone, release


def after(job: str, name: str, **spec: Any) -> Object:
    """A job that begins with another one's model."""
    return finetunejob(name, **{"model": {"jobRef": {"name": job}}, **spec})


async def owners(cluster: Cluster, claim: str) -> set[str] | None:
    """The owners of a claim by name; None where it is gone, or about to go."""
    pvc = await cluster.get("PersistentVolumeClaim", claim, "v1")
    if pvc is None or "deletionTimestamp" in pvc["metadata"]:
        return None
    return {owner["name"] for owner in pvc["metadata"].get("ownerReferences") or []}


async def claim_of(cluster: Cluster, name: str) -> str:
    """The claim of a job's artifact."""
    job = await cluster.get(FTJ, name)
    assert job
    return str(job["status"]["artifact"]["claim"])


async def begun(cluster: Cluster, name: str) -> str | None:
    """When a job made its first pod."""
    job = await cluster.get(FTJ, name)
    assert job
    attempts = job["status"].get("attempts") or [{}]
    return attempts[0].get("startTime")


async def stalled(cluster: Cluster, name: str) -> str | None:
    """Why a job is Stalled."""
    entry = condition(await cluster.get(FTJ, name), "Stalled")
    return str(entry["reason"]) if entry.get("status") == "True" else None


async def test_jobs_that_are_applied_at_once_run_one_after_another(cluster: Cluster) -> None:
    await cluster.create(*inputs())
    async with cluster.operator():
        await cluster.create(after("b", "c"), after("a", "b"), finetunejob("a"))
        last = await cluster.wait_phase(FTJ, "c", "Succeeded")
        ended = [(await cluster.get(FTJ, name)) or {} for name in ("a", "b")]
        assert str(await begun(cluster, "b")) >= ended[0]["status"]["completionTime"]
        assert str(await begun(cluster, "c")) >= ended[1]["status"]["completionTime"]
        model = last["status"]["models"]["model"]
        assert (model["job"], model["jobUid"]) == ("b", ended[1]["metadata"]["uid"])
        assert model["digest"] == ended[1]["status"]["artifact"]["digest"]
        for name in ("a", "b", "c"):
            assert await owners(cluster, await claim_of(cluster, name)) == {name}, "given back at the end"
    warned = {reason for kind, reason, _ in await cluster.events() if kind == "Warning"}
    assert warned <= {"JobNotFound", "ClaimNotBound"}


async def test_a_model_outlives_its_job_for_as_long_as_it_is_read(cluster: Cluster) -> None:
    reader = after("a", "b", compute={"gpusPerNode": 0, "pod": {"annotations": {HOLD: "true"}}})
    await cluster.create(*inputs(), finetunejob("a"), reader)
    async with cluster.operator():
        await cluster.wait_phase(FTJ, "b", "Training")
        claim = await claim_of(cluster, "a")
        assert await owners(cluster, claim) == {"a", "b"}
        await cluster.delete(finetunejob("a"))

        async def only_ours() -> bool:
            return await owners(cluster, claim) == {"b"}

        await cluster.wait_for("the deleted job's reference gone", only_ours)
        await asyncio.sleep(1)  # Long enough for garbage collection to take it, were it not owned.
        assert await only_ours()
        await cluster.create(after("nobody", "a"))  # another job under its name
        await release(cluster)
        read = await cluster.wait_phase(FTJ, "b", "Succeeded")
        assert read["status"]["models"]["model"]["claim"] == claim
        await cluster.wait_for("the claim collected", lambda: gone_claim(cluster, claim))


async def gone_claim(cluster: Cluster, claim: str) -> bool:
    """Whether garbage collection has taken a claim."""
    return await owners(cluster, claim) is None


async def test_a_job_goes_on_when_the_failed_one_is_made_anew(cluster: Cluster) -> None:
    scarce = {"gpusPerNode": 0, "pod": {"annotations": {SCARCE: "true"}}}
    await cluster.create(*inputs(), finetunejob("a", compute=scarce), after("a", "b"), after("b", "c"))
    async with cluster.operator():
        for name, reason in (("b", "JobFailed"), ("c", "JobStalled")):
            await cluster.wait_for(f"{name} reports it", lambda name=name: stalled(cluster, name))
            assert await stalled(cluster, name) == reason
        assert "40 training rows" in condition(await cluster.get(FTJ, "c"), "Ready")["message"]
        await cluster.delete(finetunejob("a"))
        await cluster.wait_for("its end", lambda: gone(cluster, FTJ, "a"))
        await cluster.create(finetunejob("a"))
        last = await cluster.wait_phase(FTJ, "c", "Succeeded")
    assert condition(last, "Stalled")["status"] == "False"


async def test_jobs_in_a_circle_all_say_so_until_one_is_changed(cluster: Cluster) -> None:
    names = {"a": "b", "b": "c", "c": "a"}
    await cluster.create(*inputs(), *(after(follows, name) for name, follows in names.items()))
    async with cluster.operator():
        for name in names:

            async def reports_the_circle(name: str = name) -> bool:
                return await stalled(cluster, name) == "JobCycle"

            await cluster.wait_for(f"{name} reports the circle", reports_the_circle)
        own = {"jobRef": None, "claim": {"name": "base-models", "path": "tiny"}}
        await cluster.patch(FTJ, "c", {"spec": {"model": own}})
        await cluster.wait_phase(FTJ, "a", "Succeeded")
