"""A queue holds, admits and preempts the Jobs of a run, as Kueue does it: by the field `suspend` of a Job."""

from hone.core.observed import Object
from tests.integration.kubelet import HOLD
from tests.integration.support import FTJ, Cluster, condition, finetunejob, inputs
from tests.integration.test_life import release


async def let(cluster: Cluster, step: str, start: bool) -> None:
    """Admit the step's Job, or take it back."""

    async def exists() -> Object | None:
        jobs = await cluster.all("Job", "batch/v1")
        return next((job for job in jobs if job["metadata"]["labels"]["hone.dev/step"] == step), None)

    job = await cluster.wait_for(f"the Job of {step}", exists)
    await cluster.patch("Job", job["metadata"]["name"], {"spec": {"suspend": not start}}, "batch/v1")


async def pods(cluster: Cluster) -> list[Object]:
    """The pods that train."""
    return [pod for pod in await cluster.all("Pod") if pod["metadata"]["labels"]["hone.dev/step"] == "train"]


async def test_a_run_waits_is_admitted_preempted_and_admitted_again(cluster: Cluster) -> None:
    job = finetunejob(queue={"name": "gpus"})
    job["spec"]["compute"]["pod"] = {"annotations": {HOLD: "true"}}

    async def none_left() -> bool:
        return not await pods(cluster)

    async with cluster.operator():
        await cluster.create(*inputs(), job)
        waiting = await cluster.wait_phase(FTJ, "sft", "Queued")

        async def says_why() -> bool:
            shown = condition(await cluster.get(FTJ, "sft"), "Reconciling")
            return "queue gpus has not admitted Job" in shown.get("message", "")

        await cluster.wait_for("why it waits", says_why)
        assert waiting["status"]["attempts"][-1]["step"] == "train" and not await pods(cluster)
        await let(cluster, "train", True)
        await cluster.wait_phase(FTJ, "sft", "Training")
        await let(cluster, "train", False)
        await cluster.wait_phase(FTJ, "sft", "Queued")
        await cluster.wait_for("the pods to end", none_left)
        await let(cluster, "train", True)
        await cluster.wait_phase(FTJ, "sft", "Training")
        await release(cluster)
        await let(cluster, "finish", True)
        done = await cluster.wait_phase(FTJ, "sft", "Succeeded")
    assert [(each["step"], each["number"]) for each in done["status"]["attempts"]] == [
        ("prepare", 1), ("train", 1), ("finish", 1),
    ]  # fmt: skip
    assert done["status"]["usage"]["retries"] == 0
