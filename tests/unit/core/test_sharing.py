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


HUB = {"model": {"uri": "hf://acme/tiny"}}
CACHED = {**HUB, "cache": {"claimName": "cache", "sizeLimit": "1Ti"}}


def test_a_cache_is_shared_with_all_jobs_that_have_its_claim_by_whatever_field() -> None:
    peers = [job("as-workspace", claim="cache"), job("recorded", claim=None, cacheClaim="cache"), job("b", claim="b")]
    by_spec = job("by-spec", claim=None)
    by_spec["spec"]["cache"] = {"claimName": "cache"}
    (volume,) = listed(*peers, by_spec, **CACHED)
    assert (volume.path, volume.limit_bytes) == ("/mnt/cache", 2**40)
    assert volume.runs == ["as-workspace", "by-spec", "recorded"]


def test_a_cache_matters_only_to_what_is_downloaded() -> None:
    assert listed(cache={"claimName": "cache"}) == []
    assert [volume.path for volume in listed(**CACHED, **SHARED)] == ["/mnt/workspace", "/mnt/cache"]
    same = {**SHARED["workspace"], "claimName": "cache"}
    assert [volume.path for volume in listed(**CACHED, workspace=same)] == ["/mnt/workspace"]


def prepared(cluster: FakeCluster, *claims: str) -> FakeCluster:
    """The cluster once the job prepares; these claims exist."""
    cluster.add(make.config_map("reviews", **{"train.jsonl": "{}"}), *(make.claim(name) for name in claims))
    cluster.converge()
    return cluster


def mounts(cluster: FakeCluster, step: str) -> dict[str, tuple[str, bool]]:
    """Claim and whether it is read-only, by path, of the first container of a step's Job."""
    pod = next(obj for ref, obj in cluster.objects.items() if ref.kind == "Job" and f"-{step}-" in ref.name)
    spec = pod["spec"]["template"]["spec"]
    claims = {each["name"]: each.get("persistentVolumeClaim", {}).get("claimName") for each in spec["volumes"]}
    return {
        mount["mountPath"]: (claims[mount["name"]], mount.get("readOnly", False))
        for mount in spec["containers"][0]["volumeMounts"]
        if claims[mount["name"]]
    }


def test_prepare_writes_to_the_cache_and_other_steps_only_read_it() -> None:
    cluster = prepared(FakeCluster(make.finetunejob(**CACHED)), "cache")
    assert mounts(cluster, "prepare")["/mnt/cache"] == ("cache", False)
    cluster.complete(make.prepared())
    cluster.converge()
    trains = mounts(cluster, "train")
    assert trains["/mnt/cache/models"] == ("cache", True)
    assert "/mnt/workspace/models" not in trains
    cluster.complete(make.trained())
    cluster.converge()
    assert mounts(cluster, "finish")["/mnt/cache/models"] == ("cache", True)


def test_the_administrators_cache_is_used_where_the_namespace_has_it_and_recorded_before_the_first_pod() -> None:
    settings = Settings(cache_claim="cache", cache_size_limit="1Ti")
    cluster = prepared(FakeCluster(make.finetunejob(**HUB), settings=settings), "cache")
    assert cluster.status["cacheClaim"] == "cache"
    assert mounts(cluster, "prepare")["/mnt/cache"] == ("cache", False)
    without = prepared(FakeCluster(make.finetunejob(**HUB), settings=settings))
    assert "cacheClaim" not in without.status
    assert "/mnt/cache" not in mounts(without, "prepare")
    nothing = prepared(FakeCluster(make.finetunejob(), settings=settings), "cache", "base-models")
    assert "cacheClaim" not in nothing.status


def test_a_claim_of_ours_is_no_cache() -> None:
    settings = Settings(cache_claim="cache")
    cluster = FakeCluster(make.finetunejob(**HUB), settings=settings).add(make.artifact_claim("cache", "other"))
    assert "cacheClaim" not in prepared(cluster).status


def test_a_run_that_has_begun_keeps_what_it_uses_when_the_administrator_changes_the_setting() -> None:
    cluster = prepared(FakeCluster(make.finetunejob(**HUB), settings=Settings()), "cache")
    before = cluster.status["runConfig"]
    cluster.settings = Settings(cache_claim="cache")
    cluster.complete(make.prepared())
    cluster.converge()
    assert (cluster.status["runConfig"], "cacheClaim" in cluster.status) == (before, False)
    assert "/mnt/workspace/models" in mounts(cluster, "train")


def test_a_cache_that_does_not_exist_is_waited_for() -> None:
    cluster = prepared(FakeCluster(make.finetunejob(**CACHED)))
    assert "spec.cache.claimName" in cluster.message("Ready")
    assert not [ref for ref in cluster.objects if ref.kind == "Job"]


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
