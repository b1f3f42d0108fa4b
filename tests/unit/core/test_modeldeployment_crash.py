"""A ModelDeployment whose operator dies at any write while its job is created again: it owns only what it serves."""

from contextlib import suppress

import pytest

from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster
from tests.unit.core.test_modeldeployment_lifecycle import DIGEST, OTHER, cluster, deployment, owners, roll_out, served

WRITES = 5
"""Status, claim, Service, Deployment, and one that is never reached."""


def create_again(ready: FakeCluster, digest: str = OTHER, claim: str = "job2-output", uid: str = "job-uid-2") -> None:
    """The job is created again under its name and completes with another artifact."""
    ready.add(make.complete_job(digest, uid=uid, claim=claim), make.artifact_claim(claim, job_uid=uid))


def dies(ready: FakeCluster, write: int) -> None:
    """Looks until the operator dies at that write, counted from now; or until nothing is due."""
    ready.crash_at = ready.writes + write
    with suppress(Crash):
        ready.converge()
    ready.crash_at = None


@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_the_first_artifact_is_given_back_where_another_took_its_place_meanwhile(write: int) -> None:
    ready = cluster(make.complete_job(DIGEST))
    dies(ready, write)
    create_again(ready)
    ready.converge()
    roll_out(ready)
    ready.converge()
    mdep = ready.resource["metadata"]["uid"]
    assert ready.status["stable"]["digest"] == OTHER
    assert (mdep in owners(ready), mdep in owners(ready, "job2-output")) == (False, True)


@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_a_second_artifact_is_given_back_where_a_third_took_its_place_meanwhile(write: int) -> None:
    ready = served()
    create_again(ready)
    dies(ready, write)
    create_again(ready, "sha256:" + "c" * 64, "job3-output", "job-uid-3")
    ready.converge()
    roll_out(ready)
    ready.converge()
    mdep = ready.resource["metadata"]["uid"]
    owned = {claim: mdep in owners(ready, claim) for claim in ("job-output", "job2-output", "job3-output")}
    assert owned == {"job-output": False, "job2-output": False, "job3-output": True}


@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_it_serves_in_the_end_wherever_the_operator_died(write: int) -> None:
    ready = cluster(make.complete_job(DIGEST))
    dies(ready, write)
    ready.converge()
    roll_out(ready)
    ready.converge()
    assert ready.condition("Ready") == ("True", "Serving")
    assert ready.resource["metadata"]["uid"] in owners(ready)


def test_an_artifact_that_went_before_it_was_owned_leaves_the_old_one_served() -> None:
    ready = served()
    create_again(ready)
    ready.reconcile()
    assert ready.status["candidate"]["digest"] == OTHER
    del ready.objects[Ref("hone.dev/v1alpha1", "FineTuneJob", "job")]
    del ready.objects[Ref("v1", "PersistentVolumeClaim", "job2-output")]
    before = deployment(ready)
    ready.converge()
    assert "candidate" not in ready.status
    assert ready.status["stable"]["digest"] == DIGEST
    assert deployment(ready) == before
    assert ready.condition("Ready") == ("True", "Serving")
    assert "still serving aaaaaaaa" in ready.message("Ready")
