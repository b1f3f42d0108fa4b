"""Rollouts of a ModelDeployment on a real API server: promoted, rejected, and gone back from, with played pods."""

from typing import Any

import pytest

from hone.api.rollout import Strategy
from hone.core.names import REVISION_LABEL, ROLE_LABEL
from hone.core.observed import Object
from tests.integration.kubelet import CRASHES
from tests.integration.support import MDEP, Cluster, condition, finetunejob, inputs, modeldeployment

CANARY = {"strategy": "Canary", "steps": [{"weight": 50, "holdSeconds": 1}]}
CRASHING = {"pod": {"annotations": {CRASHES: "yes"}}}


async def serving(cluster: Cluster, rollout: Object) -> Object:
    """A ModelDeployment whose first revision is served."""
    await cluster.create(*inputs(), finetunejob(), modeldeployment(rollout=rollout))
    return await cluster.wait_phase(MDEP, "sft", "Available")


async def when(cluster: Cluster, what: str, holds: Any) -> Object:
    """The ModelDeployment once `holds(its status)`."""

    async def probe() -> Object | None:
        live = await cluster.get(MDEP, "sft")
        return live if live and holds(live["status"]) else None

    deployment: Object = await cluster.wait_for(what, probe)
    return deployment


async def roles(cluster: Cluster) -> dict[str, str]:
    """The revision of each role's Deployment."""
    labels = [
        (live["metadata"]["labels"], live["spec"]["template"]["metadata"]["labels"])
        for live in await cluster.all("Deployment", "apps/v1")
    ]
    return {of_deployment[ROLE_LABEL]: of_pods[REVISION_LABEL] for of_deployment, of_pods in labels}


async def records(cluster: Cluster) -> set[str]:
    """The revisions that are recorded by Hone."""
    every = await cluster.all("ControllerRevision", "apps/v1")
    return {record["metadata"]["labels"][REVISION_LABEL] for record in every}


async def test_a_candidate_gets_its_share_and_then_replaces_what_is_served(cluster: Cluster) -> None:
    async with cluster.operator():
        first = (await serving(cluster, CANARY))["status"]["stable"]["revision"]
        await cluster.patch(MDEP, "sft", {"spec": {"runtime": {"args": ["--seed=1"]}}})
        await when(cluster, "the share", lambda status: (status.get("candidate") or {}).get("weight") == 50)
        second = await when(
            cluster, "the end", lambda status: status["phase"] == "Available" and status["stable"]["revision"] != first
        )
        revision = second["status"]["stable"]["revision"]
        assert "candidate" not in second["status"]

        async def is_alone() -> bool:
            return await roles(cluster) == {"stable": revision} and len(await cluster.all("Service")) == 1

        await cluster.wait_for("the candidate's objects gone", is_alone)
        (service,) = await cluster.all("Service")
        assert service["spec"]["selector"]["hone.dev/step"] == "serve"
        assert await records(cluster) == {first, revision}


async def test_a_candidate_is_compared_before_it_replaces_what_is_served(cluster: Cluster) -> None:
    rollout = {"strategy": "Canary", "analysis": {"dataset": {"configMap": {"name": "rows", "key": "rows.jsonl"}}}}
    async with cluster.operator():
        first = (await serving(cluster, rollout))["status"]["stable"]["revision"]
        await cluster.patch(MDEP, "sft", {"spec": {"runtime": {"args": ["--seed=1"]}}})
        second = await when(
            cluster, "the end", lambda status: status["phase"] == "Available" and status["stable"]["revision"] != first
        )
        assert condition(second, "Analyzed")["reason"] == "Pass"
        assert second["status"]["analysis"]["revision"] == second["status"]["stable"]["revision"]


async def test_a_candidate_that_crashes_is_rejected_and_ready_stays_true(cluster: Cluster) -> None:
    async with cluster.operator():
        first = (await serving(cluster, CANARY))["status"]["stable"]["revision"]
        await cluster.patch(MDEP, "sft", {"spec": CRASHING})
        rejected = await when(
            cluster, "the refusal", lambda status: status.get("rejected") and status["phase"] == "Available"
        )
        assert condition(rejected, "Ready")["status"] == "True"
        assert condition(rejected, "Available")["status"] == "True"
        assert condition(rejected, "Progressing")["reason"] == "CandidateRejected"
        assert "no kernel image; still serving" in condition(rejected, "Progressing")["message"]

        async def is_alone() -> bool:
            return await roles(cluster) == {"stable": first}

        await cluster.wait_for("the candidate gone", is_alone)
        assert ("Warning", "CandidateRejected") in {event[:2] for event in await cluster.events()}
        tried = {**CANARY, "retry": "again"}
        await cluster.patch(MDEP, "sft", {"spec": {"rollout": tried}})
        await when(cluster, "the second try", lambda status: len(status.get("rejected") or []) == 2)


@pytest.mark.parametrize("strategy", [Strategy.RECREATE, Strategy.ROLLING_UPDATE])
async def test_in_place_a_revision_that_crashes_makes_way_for_the_recorded_one(
    cluster: Cluster, strategy: Strategy
) -> None:
    """The first revision is made with the other strategy: the API server refuses parts of one in the other."""
    other = next(each for each in (Strategy.ROLLING_UPDATE, Strategy.RECREATE) if each != strategy)
    async with cluster.operator():
        first = (await serving(cluster, {"strategy": other}))["status"]["stable"]["revision"]
        await cluster.patch(MDEP, "sft", {"spec": {**CRASHING, "rollout": {"strategy": strategy}}})
        back = await when(
            cluster,
            "the old revision",
            lambda status: status.get("rejected") and status["phase"] == "Available",
        )
        assert back["status"]["stable"]["revision"] == first
        assert condition(back, "Progressing")["reason"] == "CandidateRejected"
        assert await roles(cluster) == {"stable": first}
