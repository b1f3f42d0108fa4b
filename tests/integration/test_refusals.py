"""What cannot work is reported in status and in an Event, with field and remedy, and leaves nothing half-made."""

import asyncio
from typing import Any

import pytest

from hone.core.kinds import KINDS
from hone.core.observed import Object, Ref
from hone.runtime.errors import Invalid
from tests.integration.kubelet import MANUAL, SCARCE, SCARCE_HINT, SCARCE_MESSAGE
from tests.integration.support import (
    FTJ,
    MDEP,
    OPTIONS,
    SETTINGS,
    Cluster,
    condition,
    finetunejob,
    inputs,
    kubectl,
    modeldeployment,
    object_of,
)


def annotated(name: str, **spec: Any) -> Object:
    """A FineTuneJob whose pods carry an annotation for kwok's Stages."""
    job = finetunejob(**spec)
    job["spec"]["compute"]["pod"] = {"annotations": {name: "true"}}
    return job


async def stalled(cluster: Cluster, kind: str, reason: str) -> str:
    """Wait until the resource `sft` is Stalled for that reason, in status and as a Warning; returns the message."""

    async def probe() -> str | None:
        entry = condition(await cluster.get(kind, "sft"), "Stalled")
        right = entry.get("status") == "True" and entry["reason"] == reason
        return entry["message"] if right else None

    message: str = await cluster.wait_for(f"{kind} Stalled/{reason}", probe)
    await warned(cluster, reason, message)
    return message


async def troubled(cluster: Cluster, reason: str) -> str:
    """Wait until the job is Reconciling for that reason, in status and as a Warning; returns the message."""

    async def probe() -> str | None:
        entry = condition(await cluster.get(FTJ, "sft"), "Reconciling")
        return entry["message"] if entry.get("reason") == reason else None

    message: str = await cluster.wait_for(f"Reconciling/{reason}", probe)
    await warned(cluster, reason, message)
    return message


async def warned(cluster: Cluster, reason: str, message: str) -> None:
    """Wait for the Warning."""

    async def probe() -> bool:
        return any(
            (kind, why) == ("Warning", reason) and words in message for kind, why, words in await cluster.events()
        )

    await cluster.wait_for(f"a Warning {reason}", probe)


FOREIGN: dict[str, Object] = {
    "Job": object_of(
        "batch/v1",
        "Job",
        "",
        spec={
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "foreign"}]}},
        },
    ),
    "ConfigMap": object_of("v1", "ConfigMap", "", data={"run.json": "{}"}),
    "PersistentVolumeClaim": object_of(
        "v1",
        "PersistentVolumeClaim",
        "",
        spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
async def test_a_foreign_object_with_a_childs_name_is_left_alone(cluster: Cluster, kind: str) -> None:
    await cluster.create(*inputs(), finetunejob())
    job = await cluster.get(FTJ, "sft")
    assert job
    foreign = FOREIGN[kind]
    foreign["metadata"]["name"] = child_of(job, kind)
    await cluster.create(foreign)
    before = await cluster.leftovers()
    async with cluster.operator():
        message = await stalled(cluster, FTJ, "NameConflict")
    assert f"{kind} {foreign['metadata']['name']!r}" in message
    assert "delete it" in message and "another name" in message
    created = await cluster.leftovers() - before
    # No watch shows a Job without our label, so it is met when ours is to be created: after what its pods need.
    assert not created or (kind == "Job" and not any(name.startswith(("Job/", "Pod/")) for name in created)), created
    left = await cluster.get(kind, foreign["metadata"]["name"], foreign["apiVersion"])
    assert left and "ownerReferences" not in left["metadata"]
    await cluster.delete(foreign)
    async with cluster.operator():
        await cluster.wait_phase(FTJ, "sft", "Succeeded")


def child_of(job: Object, kind: str) -> str:
    """Name of a child of that kind that the operator will make."""
    refs = KINDS[FTJ].refs(KINDS[FTJ].subject(job, SETTINGS), {})
    names = [ref.name for ref in refs if ref.kind == kind and ref.name not in ("base-models", "rows")]
    return next((name for name in names if name.endswith("-prepare-1")), names[0])


async def test_a_foreign_service_with_a_deployments_name(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob(), modeldeployment())
    deployment = await cluster.get(MDEP, "sft")
    assert deployment
    refs = KINDS[MDEP].refs(KINDS[MDEP].subject(deployment, SETTINGS), {})
    name = next(ref.name for ref in refs if ref.kind == "Service")
    service = object_of("v1", "Service", name, spec={"ports": [{"port": 80}], "selector": {"app": "foreign"}})
    await cluster.create(service)
    async with cluster.operator():
        message = await stalled(cluster, MDEP, "NameConflict")
        assert f"Service {name!r}" in message
        left = await cluster.get("Service", name, "v1")
        assert left and left["spec"]["selector"] == {"app": "foreign"}
        await cluster.delete(service)
    async with cluster.operator():
        await cluster.wait_phase(MDEP, "sft", "Available")


async def test_a_claim_that_is_missing_is_waited_for(cluster: Cluster) -> None:
    claim, rows = inputs()
    await cluster.create(rows, finetunejob())
    async with cluster.operator():
        message = await troubled(cluster, "PersistentVolumeClaimNotFound")
        assert "spec.model.claim.name" in message and "'base-models'" in message and "create it" in message
        code, table, error = await kubectl(cluster, "get", "ftj", "sft", "--output", "wide")
        assert (code, error) == (0, "")
        assert message in table, "kubectl tells why"
        assert not [name for name in await cluster.leftovers() if name.startswith(("Job/", "Pod/"))]
        await cluster.create(claim)
    async with cluster.operator():
        await cluster.wait_phase(FTJ, "sft", "Succeeded")


async def test_a_key_that_is_missing_is_named_with_those_that_are_there(cluster: Cluster) -> None:
    job = finetunejob(dataset={"train": {"configMap": {"name": "rows", "key": "other.jsonl"}}})
    await cluster.create(*inputs(), job)
    async with cluster.operator():
        message = await troubled(cluster, "KeyNotFound")
    assert "spec.dataset.train.configMap.key" in message and "train.jsonl" in message


async def test_too_few_rows_fail_before_training(cluster: Cluster) -> None:
    await cluster.create(*inputs(), annotated(SCARCE))
    async with cluster.operator():
        job = await cluster.wait_phase(FTJ, "sft", "Failed")
    finished = condition(job, "Finished")
    assert (finished["status"], finished["reason"]) == ("True", "Failed"), "kubectl wait must not hang"
    failed = condition(job, "Failed")
    assert failed["reason"] == "BadInput" and SCARCE_MESSAGE in failed["message"]
    (attempt,) = job["status"]["attempts"]
    assert (attempt["step"], attempt["failure"]["hint"]) == ("prepare", SCARCE_HINT)
    assert [j["metadata"]["name"] for j in await cluster.all("Job", "batch/v1")] == [attempt["job"]], "no training"
    assert any(reason == "FailedBadInput" and SCARCE_MESSAGE in note for _, reason, note in await cluster.events())


async def test_an_image_that_cannot_be_pulled_is_shown(cluster: Cluster) -> None:
    await cluster.create(*inputs(), annotated(MANUAL))
    async with cluster.operator():
        pod = await cluster.wait_for("a pod", lambda: scheduled_pod(cluster))
        words = 'failed to pull and unpack image "nowhere.example/none:1": not found'
        waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": words}}}
        container = {"name": pod["spec"]["containers"][0]["name"], "image": "x", "imageID": "", "ready": False}
        status = {**pod["status"], "containerStatuses": [{**container, "restartCount": 0, **waiting}]}
        await cluster.client.update_status(pod, status)
        message = await troubled(cluster, "ImagePullBackOff")
    assert words in message and pod["metadata"]["name"] in message


async def test_a_pod_that_cannot_be_scheduled_is_shown_in_the_schedulers_words(cluster: Cluster) -> None:
    job = finetunejob()
    job["spec"]["compute"]["pod"] = {"nodeSelector": {"gpu": "none-has-this"}}
    await cluster.create(*inputs(), job)
    async with cluster.operator():
        # Its first words may be about a claim that is not bound yet, which is another reason.
        assert "didn't match Pod's node affinity/selector" in await troubled(cluster, "Unschedulable")
        node = Ref("v1", "Node", "fake-0")
        await cluster.client.patch("", node, {"metadata": {"labels": {"gpu": "none-has-this"}}})
        await cluster.wait_phase(FTJ, "sft", "Succeeded")
        await cluster.client.patch("", node, {"metadata": {"labels": {"gpu": None}}})


async def test_a_quota_that_forbids_is_told_in_the_api_servers_words_and_tried_again(cluster: Cluster) -> None:
    quota = object_of("v1", "ResourceQuota", "none", spec={"hard": {"count/jobs.batch": "0"}})
    await cluster.create(*inputs(), quota)

    async def counted() -> bool:
        live = await cluster.get("ResourceQuota", "none", "v1")
        return bool(live and (live.get("status") or {}).get("hard"))

    await cluster.wait_for("the quota in force", counted)
    await cluster.create(finetunejob())
    async with cluster.operator() as operator:
        message = await stalled(cluster, FTJ, "Refused")
        assert "exceeded quota: none" in message
        assert not await cluster.all("Job", "batch/v1")
        await asyncio.sleep(3 * OPTIONS.refused_seconds)
        assert operator.client.calls["create", "Job"] < 8, "a refusal is not hammered"
        await cluster.delete(quota)
        await cluster.wait_phase(FTJ, "sft", "Succeeded")


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        ({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}, "must be less than or equal to cpu limit"),
        ({"resources": {"limits": {"none/of/such": 1}}}, "none/of/such"),
        (
            {
                "pod": {
                    "affinity": {
                        "nodeAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": {
                                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Around"}]}]
                            }
                        }
                    }
                }
            },
            "not a valid selector operator",
        ),
    ],
)
async def test_what_only_the_job_api_refuses_is_told_before_the_first_pod(
    cluster: Cluster, compute: Object, words: str
) -> None:
    job = finetunejob()
    job["spec"]["compute"].update(compute)
    await cluster.create(*inputs(), job)
    async with cluster.operator():
        message = await stalled(cluster, FTJ, "Refused")
    assert "-train-1: " in message and words in message
    assert not await cluster.all("Job", "batch/v1")
    assert await cluster.leftovers() == set()


async def test_a_started_jobs_edit_is_refused_and_does_not_disturb_it(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob())
    async with cluster.operator():
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")
    with pytest.raises(Invalid, match=r"Create a job with another metadata\.name"):
        await cluster.patch(FTJ, "sft", {"spec": {"hyperparameters": {"epochs": 5}}})
    assert await cluster.get(FTJ, "sft") == job


async def scheduled_pod(cluster: Cluster) -> Object | None:
    pods = [pod for pod in await cluster.all("Pod") if pod["spec"].get("nodeName")]
    return pods[0] if pods else None
