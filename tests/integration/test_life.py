"""A whole life: data prepared, trained, scored, served; then deleted, and nothing is left."""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from hone.contract.progress import Progress
from hone.contract.runconfig import METRICS_PORT
from hone.core.names import STEP_LABEL
from hone.core.observed import Object
from hone.runtime.operator import Operator
from tests.integration.kubelet import HOLD, POD_ADDRESS
from tests.integration.kubelet import SERVED as SERVED_BY_VLLM
from tests.integration.support import FTJ, MDEP, SETTINGS, Cluster, condition, finetunejob, inputs, modeldeployment

SERVED = {"Deployment", "ReplicaSet", "Pod", "Service"}
"""What a ModelDeployment makes."""


async def test_a_job_runs_to_its_end(cluster: Cluster) -> None:
    job_manifest, label = finetunejob(), f'namespace="{cluster.namespace}"'
    await cluster.create(*inputs(), job_manifest)
    async with cluster.operator() as operator:
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")

        async def told_in_metrics() -> str | None:
            text = operator.metrics.text().decode()
            return text if f'hone_finetunejob_phase{{name="sft",{label},phase="Succeeded"}} 1.0' in text else None

        # The operator sees its own last write a moment after us.
        text = await cluster.wait_for("the phase in the metrics", told_in_metrics, seconds=30)
    status = job["status"]
    assert [(a["step"], a["number"], a["result"]) for a in status["attempts"]] == [
        ("prepare", 1, "Succeeded"),
        ("train", 1, "Succeeded"),
        ("finish", 1, "Succeeded"),
    ]
    for kind in ("Validated", "Complete", "Finished", "Promotable", "Ready"):
        assert condition(job, kind)["status"] == "True", kind
    assert status["plan"]["totalSteps"] == 50
    assert status["artifact"]["digest"] == "sha256:a1"
    assert status["evaluation"]["scores"][0]["tuned"]["value"] == 0.8
    assert status["observedGeneration"] == job["metadata"]["generation"]
    steps = [f"{step}Succeeded" for step in ("Prepare", "Train")]
    # The scheduler may look at a pod before the claim that was made along with it is bound, and says so.
    reasons = [reason for _, reason, _ in await cluster.events() if reason != "ClaimNotBound"]
    assert sorted(reasons) == sorted([*steps, "Succeeded"])
    assert f'hone_finetunejob_phase{{name="sft",{label},phase="Training"}} 0.0' in text
    assert 'controller_runtime_reconcile_errors_total{controller="finetunejob"} 0.0' in text


async def test_a_job_whose_answers_vllm_generates_runs_to_its_end(cluster: Cluster) -> None:
    # The API server takes the sidecar, under the policies of the chart.
    manifest = finetunejob(
        objective="GRPO",
        reward={"functions": [{"name": "ExactMatch"}]},
        generation={"engine": "VLLM", "resources": {"limits": {"memory": "4Gi"}}},
        compute={"gpusPerNode": 0, "pod": {"annotations": {SERVED_BY_VLLM: "true"}}},
    )
    await cluster.create(*inputs(), manifest)
    async with cluster.operator():
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")
        (name,) = [attempt["job"] for attempt in job["status"]["attempts"] if attempt["step"] == "train"]
        created = await cluster.get("Job", name, "batch/v1")
    assert created is not None
    pod = created["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("vllm", "Always")
    assert sidecar["resources"]["limits"] == {"memory": "4Gi"}
    assert len(pod["containers"]) == 1
    assert job["status"]["plan"]["generationEngine"] == "VLLM"


async def test_a_finished_job_costs_no_more_calls(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob())
    async with cluster.operator() as operator:
        await cluster.wait_phase(FTJ, "sft", "Succeeded")

        async def quiet() -> bool:
            before = operator.client.calls.total()
            await asyncio.sleep(4 * SETTINGS.progress_seconds)
            return operator.client.calls.total() == before

        await cluster.wait_for("no call for a while", quiet, seconds=30)


async def test_the_resource_stays_its_authors(cluster: Cluster) -> None:
    job_manifest = finetunejob()
    await cluster.create(*inputs(), job_manifest)
    async with cluster.operator():
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")
    assert job["spec"] == job_manifest["spec"]
    assert not {"finalizers", "annotations", "labels", "ownerReferences"} & set(job["metadata"])
    writers = {(entry["manager"], entry.get("subresource", "")) for entry in job["metadata"]["managedFields"]}
    assert writers == {("test", ""), ("hone", "status")}


async def test_a_deployment_made_before_its_job_serves_it_when_it_is_done(cluster: Cluster) -> None:
    await cluster.create(*inputs(), modeldeployment())
    async with cluster.operator():
        await cluster.wait_phase(MDEP, "sft", "Waiting")
        await cluster.create(finetunejob())
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")
        served = await cluster.wait_phase(MDEP, "sft", "Available")
    assert condition(served, "Available")["status"] == "True"
    assert served["status"]["readyReplicas"] == 1
    assert served["status"]["stable"]["digest"] == job["status"]["artifact"]["digest"]


async def test_a_model_that_its_gate_refuses_is_served_once_the_gate_is_lowered(cluster: Cluster) -> None:
    """The scores are 0.8 [0.7, 0.9]: the figure reaches 0.75, its interval does not."""
    await cluster.create(*inputs(), finetunejob(gate={"rules": [{"min": 0.75}]}), modeldeployment())
    async with cluster.operator():
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")
        assert condition(job, "Promotable")["reason"] == "GateInconclusive"

        async def refused_by_the_gate() -> Any:
            deployment = await cluster.get(MDEP, "sft")
            return deployment and condition(deployment, "Progressing")["reason"] == "NotPromotable" and deployment

        refused = await cluster.wait_for("the refusal", refused_by_the_gate)
        assert "exact_match >= 0.75: 0.80 [0.70, 0.90], 100 rows" in condition(refused, "Progressing")["message"]
        assert not await cluster.all("Deployment", "apps/v1")
        await cluster.patch(FTJ, "sft", {"spec": {"gate": {"rules": [{"min": 0.65}]}}})
        await cluster.wait_phase(MDEP, "sft", "Available")
        job = await cluster.get(FTJ, "sft") or {}
    assert condition(job, "Promotable")["reason"] == "GatePassed"
    assert len(job["status"]["attempts"]) == 3, "nothing ran again"


async def test_deleting_everything_leaves_nothing(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob(), modeldeployment())
    async with cluster.operator() as operator:
        await cluster.wait_phase(MDEP, "sft", "Available")
        await cluster.delete(modeldeployment())
        await cluster.delete(finetunejob())
        await cluster.wait_for("nothing left", lambda: nothing_left(cluster))
        await cluster.wait_for("no series left", lambda: no_series_left(operator))


async def test_the_artifact_outlives_its_job_while_it_is_served(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob(), modeldeployment())
    async with cluster.operator():
        await cluster.wait_phase(MDEP, "sft", "Available")
        job = await cluster.get(FTJ, "sft")
        assert job
        claim = job["status"]["artifact"]["claim"]
        await cluster.delete(finetunejob())

        async def only_the_artifact() -> bool:
            # The server's own ConfigMap is the check of keys.
            left = {
                name for name in await cluster.leftovers() if name.split("/")[0] not in SERVED and "-guard-" not in name
            }
            pvc = await cluster.get("PersistentVolumeClaim", claim, "v1")
            # One that is in use and deleted stays until its pods end; it would be gone with the next one.
            remains = pvc is not None and "deletionTimestamp" not in pvc["metadata"]
            return remains and left == {f"PersistentVolumeClaim/{claim}"}

        await cluster.wait_for("just the artifact left", only_the_artifact)
        await asyncio.sleep(1)  # Long enough for garbage collection to take it, were it not owned.
        assert await only_the_artifact()
        served = await cluster.get(MDEP, "sft")
        assert condition(served, "Available")["status"] == "True"
        await cluster.delete(modeldeployment())
        await cluster.wait_for("nothing left", lambda: nothing_left(cluster))


async def test_a_job_made_again_under_its_name_starts_afresh_and_is_served(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob(), modeldeployment())
    async with cluster.operator():
        await cluster.wait_phase(MDEP, "sft", "Available")
        first = await cluster.get(FTJ, "sft")
        await cluster.delete(finetunejob())
        await cluster.wait_for("the job gone", lambda: gone(cluster, FTJ, "sft"))
        await cluster.create(finetunejob(hyperparameters={"epochs": 2}))
        second = await cluster.wait_phase(FTJ, "sft", "Succeeded")
        assert first and first["metadata"]["uid"] != second["metadata"]["uid"]
        assert not jobs_of(first) & jobs_of(second)
        assert len(second["status"]["attempts"]) == 3

        async def serves_the_second() -> Any:
            deployment = await cluster.get(MDEP, "sft")
            claims = {entry["metadata"]["name"] for entry in await cluster.all("PersistentVolumeClaim")}
            served = deployment and deployment["status"]["phase"] == "Available"
            return served and first["status"]["artifact"]["claim"] not in claims

        # Its digest is the same here, but not its claim: the old one is given back and collected.
        await cluster.wait_for("the second served, and the first's artifact gone", serves_the_second)


async def test_a_name_that_no_service_may_have(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob("3b.v1-sft"), modeldeployment("3b.v1-sft", "3b.v1-sft"))
    async with cluster.operator():
        await cluster.wait_phase(FTJ, "3b.v1-sft", "Succeeded")
        await cluster.wait_phase(MDEP, "3b.v1-sft", "Available")


async def test_progress_is_shown_while_it_trains(cluster: Cluster) -> None:
    job = finetunejob()
    job["spec"]["compute"]["pod"] = {"annotations": {HOLD: "true"}}
    await cluster.create(*inputs(), job)
    async with progress_of_the_pod(cluster) as reported, cluster.operator() as operator:
        await cluster.wait_phase(FTJ, "sft", "Training")

        async def shows(step: int) -> bool:
            status = ((await cluster.get(FTJ, "sft")) or {}).get("status") or {}
            return (status.get("progress") or {}).get("step") == step

        for step in (10, 25):
            reported["step"] = step
            await cluster.wait_for(f"step {step} in status", functools.partial(shows, step))
        current = await cluster.get(FTJ, "sft")
        assert current and current["status"]["progress"]["percent"] == 50
        assert condition(current, "ProgressAvailable")["status"] == "True"
        text = operator.metrics.text().decode()
        assert f'hone_finetunejob_step{{name="sft",namespace="{cluster.namespace}"}} 25.0' in text
        assert f'hone_finetunejob_loss{{name="sft",namespace="{cluster.namespace}"}} 1.5' in text
        reported["pod_uid"] = "somebody-else"

        async def not_available() -> bool:
            return condition(await cluster.get(FTJ, "sft"), "ProgressAvailable").get("status") == "False"

        await cluster.wait_for("another pod's answer refused", not_available)
        await release(cluster)
        await cluster.wait_phase(FTJ, "sft", "Succeeded")


@asynccontextmanager
async def progress_of_the_pod(cluster: Cluster) -> AsyncIterator[dict[str, Any]]:
    """Serves `/progress` at the played pods' address; yields what to change in the answer."""
    reported: dict[str, Any] = {}

    async def answer(_: web.Request) -> web.Response:
        pods = [pod for pod in await cluster.all("Pod") if pod["metadata"]["labels"].get(STEP_LABEL) == "train"]
        base = {"pod_uid": pods[0]["metadata"]["uid"] if pods else "", "total_steps": 50, "loss": 1.5}
        return web.json_response(Progress(stage="Training", **{**base, **reported}).to_dict())

    app = web.Application()
    app.router.add_get("/progress", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, POD_ADDRESS, METRICS_PORT).start()
    try:
        yield reported
    finally:
        await runner.cleanup()


async def release(cluster: Cluster) -> None:
    """Let held trainer pods end."""
    for pod in await cluster.all("Pod"):
        name = pod["metadata"]["name"]
        await cluster.patch("Pod", name, {"metadata": {"annotations": {HOLD: None}}}, "v1")


async def nothing_left(cluster: Cluster) -> bool:
    return not await cluster.leftovers()


async def no_series_left(operator: Operator) -> bool:
    return b'name="sft"' not in operator.metrics.text()


async def gone(cluster: Cluster, kind: str, name: str) -> bool:
    return await cluster.get(kind, name) is None


def jobs_of(resource: Object) -> set[str]:
    return {attempt["job"] for attempt in resource["status"]["attempts"]}
