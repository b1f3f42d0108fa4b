"""Jobs that share a workspace or a cache: each is told which others have not ended, with the operator's own rights."""

import json
from dataclasses import replace

from hone.contract.runconfig import ATTEMPT_ENV, Attempt, SharedVolume
from hone.core.observed import Object
from tests.integration.support import FTJ, SETTINGS, Cluster, finetunejob, inputs, object_of

SCRATCH = {"claimName": "scratch", "sizeLimit": "10Gi"}


def claim(name: str) -> Object:
    """A claim of the user's."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return object_of("v1", "PersistentVolumeClaim", name, spec=spec)


async def shared(cluster: Cluster, job: str) -> list[SharedVolume]:
    """What the prepare pod of a job is told."""
    status = (await cluster.get(FTJ, job) or {})["status"]
    (name,) = [attempt["job"] for attempt in status["attempts"] if attempt["step"] == "prepare"]
    created = await cluster.get("Job", name, "batch/v1")
    assert created
    (container,) = created["spec"]["template"]["spec"]["containers"]
    (text,) = [entry["value"] for entry in container["env"] if entry["name"] == ATTEMPT_ENV]
    return Attempt.from_dict(json.loads(text)).shared


async def test_a_job_is_told_which_others_share_its_workspace_and_have_not_ended(cluster: Cluster) -> None:
    waits = finetunejob("waits", workspace=SCRATCH, suspend=True)
    await cluster.create(*inputs(), claim("scratch"), waits, finetunejob("first", workspace=SCRATCH))
    async with cluster.operator():
        await cluster.wait_phase(FTJ, "first", "Succeeded")
        await cluster.create(finetunejob("second", workspace=SCRATCH))
        await cluster.wait_phase(FTJ, "second", "Succeeded")
    stored = await cluster.get(FTJ, "waits")
    assert stored
    for job in ("first", "second"):
        (volume,) = await shared(cluster, job)
        assert (volume.path, volume.limit_bytes) == ("/mnt/workspace", 10 * 2**30)
        assert (volume.runs, volume.planned) == ([stored["metadata"]["uid"]], []), job


async def test_the_administrators_cache_is_recorded_and_mounted(cluster: Cluster) -> None:
    await cluster.create(*inputs(), claim("hone-cache"), finetunejob("sft", model={"uri": "hf://acme/tiny"}))
    settings = replace(SETTINGS, cache_claim="hone-cache", cache_size_limit="1Ti")
    async with cluster.operator(settings=settings):
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")
    assert job["status"]["cacheClaim"] == "hone-cache"
    (volume,) = await shared(cluster, "sft")
    assert (volume.path, volume.limit_bytes, volume.runs) == ("/mnt/cache", 2**40, [])
