"""Which jobs need what is on a shared workspace: what the operator tells the prepare pod."""

import json
from datetime import datetime
from typing import Any

import pytest

from hone.contract.runconfig import ATTEMPT_ENV, Attempt, SharedVolume
from hone.core.finetunejob.policies.sharing import MAX_RUNS, reads_peers, shared_volumes
from hone.core.finetunejob.resources.runconfig import rendered
from hone.core.finetunejob.run import Run
from hone.core.observed import Object, Observed
from hone.core.settings import Settings
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster

NOW = datetime.fromisoformat("2026-11-30T12:00:00Z")
SHARED = {"workspace": {"claimName": "scratch", "sizeLimit": "50Gi"}}


def job(uid: str, claim: str | None = "scratch", **status: Any) -> Object:
    """A job of the namespace."""
    spec = {"workspace": {"claimName": claim}} if claim else {}
    return make.finetunejob(name=f"job-{uid}", uid=uid, **spec) | {"status": status}


def ended(uid: str, **meta: Any) -> Object:
    """A job that has ended."""
    over = job(uid, conditions=[{"type": "Finished", "status": "True"}], observedGeneration=1, plan={"totalSteps": 1})
    return over | {"metadata": {**over["metadata"], **meta}}


def listed(*peers: Object, **spec: Any) -> list[SharedVolume]:
    run = Run(make.finetunejob(**(spec or SHARED)), Settings())
    return shared_volumes(run, Observed(peers=(run.resource, *peers)), NOW)


def test_the_jobs_are_those_that_have_not_ended_and_have_the_same_claim() -> None:
    peers = [job("waits"), job("trains", plan={"totalSteps": 1}), job("alone", claim=None), job("b", claim="another")]
    (volume,) = listed(*peers, ended("over"))
    assert (volume.runs, volume.planned) == (["waits"], ["trains"])
    assert (volume.path, volume.limit_bytes) == ("/mnt/workspace", 50 * 2**30)
    assert volume.as_of == NOW.timestamp()


def test_a_job_that_was_edited_after_its_end_has_not_ended() -> None:
    (volume,) = listed(ended("scored-again", generation=2))
    assert volume.planned == ["scored-again"]


def test_without_a_limit_the_list_is_the_same() -> None:
    (volume,) = listed(job("waits"), workspace={"claimName": "scratch"})
    assert (volume.limit_bytes, volume.runs) == (None, ["waits"])


def test_with_too_many_jobs_nothing_is_listed_and_so_nothing_removed() -> None:
    assert listed(*(job(f"{number}") for number in range(MAX_RUNS + 1))) == []


@pytest.mark.parametrize(
    ("spec", "status", "reads"),
    [
        (SHARED, {}, True),
        ({}, {}, False),
        ({**SHARED, "suspend": True}, {}, False),
        (SHARED, {"attempts": [{"step": "prepare", "number": 1, "job": "x", "result": "Running"}]}, False),
        (SHARED, {"plan": make.training_plan().to_dict()}, False),
    ],
    ids=["prepares-next", "a-claim-of-its-own", "suspended", "an-attempt-runs", "prepared"],
)
def test_other_jobs_are_listed_only_before_a_job_that_shares_its_workspace_prepares(
    spec: dict[str, Any], status: dict[str, Any], reads: bool
) -> None:
    times = [{"startTime": "2026-11-30T12:00:00Z", **attempt} for attempt in status.get("attempts", [])]
    resource = make.finetunejob(**spec) | {"status": {**status, **({"attempts": times} if times else {})}}
    assert reads_peers(Run(resource, Settings())) is reads


def test_the_prepare_pod_gets_the_list_and_the_run_config_does_not_depend_on_it() -> None:
    cluster = FakeCluster(make.finetunejob(**SHARED))
    cluster.add(make.claim("base-models"), make.claim("scratch"), make.config_map("reviews", **{"train.jsonl": "{}"}))
    cluster.add(job("trains", plan={"totalSteps": 1}))
    before = rendered(Run(cluster.resource, Settings()))
    cluster.converge()
    (prepare,) = [obj for ref, obj in cluster.objects.items() if ref.kind == "Job"]
    (container,) = prepare["spec"]["template"]["spec"]["containers"]
    (text,) = [entry["value"] for entry in container["env"] if entry["name"] == ATTEMPT_ENV]
    (volume,) = Attempt.from_dict(json.loads(text)).shared
    assert volume.planned == ["trains"]
    assert rendered(Run(cluster.resource, Settings())) == before
    assert "trains" not in before
