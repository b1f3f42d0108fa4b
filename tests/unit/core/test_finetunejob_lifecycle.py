"""The lifecycle of a FineTuneJob from its creation to its end, with the operator dying at every write of it."""

import itertools
import re

import pytest

from hone.core.finetunejob.resources.jobs import config_of
from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster, finetunejob_cluster

LIFECYCLE = ["prepare-1", "train-1", "finish-1"]
MODEL = Ref("v1", "PersistentVolumeClaim", "base-models")


def live(cluster: FakeCluster) -> None:
    """Play the cluster until the job has ended; every step goes well."""
    for _ in range(40):
        try:
            cluster.converge()
        except Crash:
            continue
        if cluster.status.get("phase") in ("Succeeded", "Failed"):
            return
        step = cluster.job()["metadata"]["labels"]["hone.dev/step"]
        cluster.complete({"prepare": make.prepared(), "train": make.trained(), "finish": make.finished()}[step])
        cluster.later(60)
    raise AssertionError(f"no end: {cluster.status}")


def test_a_whole_lifecycle_is_one_job_for_each_step() -> None:
    cluster = finetunejob_cluster()
    live(cluster)
    assert cluster.jobs() == LIFECYCLE
    assert cluster.status["phase"] == "Succeeded"
    assert (cluster.status["score"], cluster.status["improvement"]) == ("0.91", "+0.62 [0.55, 0.69]")
    assert cluster.status["artifact"]["digest"] == "sha256:a57e"
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert cluster.condition("Ready") == ("True", "Succeeded")
    assert cluster.condition("Promotable") == ("True", "NoGate")
    assert cluster.reasons() == [
        "PrepareSucceeded",
        "TrainSucceeded",
        "Succeeded",
    ]


def test_the_operator_may_die_at_any_write() -> None:
    whole = finetunejob_cluster()
    live(whole)
    for crash_at in range(1, whole.writes + 1):
        cluster = finetunejob_cluster()
        cluster.crash_at = crash_at
        live(cluster)
        assert cluster.jobs() == LIFECYCLE, f"crash at write {crash_at}"
        assert [len(list(group)) for _, group in itertools.groupby(sorted(cluster.created))] == [1] * len(
            cluster.created
        )
        assert cluster.status["phase"] == "Succeeded"
        assert [a["result"] for a in cluster.status["attempts"]] == ["Succeeded"] * 3


def edited_before_its_start(failed: bool) -> FakeCluster:
    """A job that was prepared, or failed in it, and then was given another spec."""
    cluster = finetunejob_cluster()
    cluster.converge()
    if failed:
        cluster.fail(64, make.verdict("BadInput"))
    else:
        cluster.complete(make.prepared())
        cluster.objects.pop(MODEL)  # keeps training from its start
    cluster.converge()
    cluster.add(make.claim("base-models"))
    cluster.pods.clear()
    return cluster.edit(hyperparameters={"epochs": 2.0})


@pytest.mark.parametrize("failed", [False, True], ids=["prepared", "failed"])
@pytest.mark.slow
def test_the_operator_may_die_at_any_write_after_an_edit(failed: bool) -> None:
    whole = edited_before_its_start(failed)
    before = whole.writes
    live(whole)
    for crash_at in range(before + 1, whole.writes + 1):
        cluster = edited_before_its_start(failed)
        cluster.crash_at = crash_at
        live(cluster)
        assert cluster.jobs() == ["prepare-1", "prepare-2", "train-1", "finish-1"], f"crash at write {crash_at}"
        assert cluster.status["phase"] == "Succeeded"
        assert cluster.status["failures"] == {}
        configs = {config_of(cluster.written[ref]) for ref in cluster.created if ref.kind == "Job"}
        assert len(configs) == 2, "all steps after the edit are told the same"


def test_an_edit_that_overtakes_the_start_is_prepared_anew() -> None:
    cluster = finetunejob_cluster()
    cluster.converge()
    cluster.complete(make.prepared())
    cluster.crash_at = cluster.writes + 2
    with pytest.raises(Crash):
        cluster.converge()
    assert cluster.jobs() == ["prepare-1", "train-1"]
    assert "startTime" not in cluster.status
    cluster.start()
    cluster.edit(hyperparameters={"epochs": 2.0}).converge()
    assert [a["result"] for a in cluster.status["attempts"]] == ["Succeeded", "Replaced"]
    assert "startTime" not in cluster.status
    cluster.drop_deleted_pods()
    cluster.converge()
    cluster.complete(make.prepared())
    cluster.converge()
    assert cluster.jobs() == ["prepare-1", "train-1", "prepare-2", "train-2"]
    assert config_of(cluster.job()) == cluster.status["runConfig"]


def test_a_finished_job_costs_nothing() -> None:
    cluster = finetunejob_cluster()
    live(cluster)
    gets, writes = cluster.gets, cluster.writes
    plan = cluster.reconcile()
    assert (plan.create, plan.apply, plan.delete, plan.status, plan.requeue_after) == ((), (), (), None, None)
    assert (cluster.gets, cluster.writes) == (gets, writes)


def test_while_an_attempt_runs_only_its_job_is_read() -> None:
    cluster = finetunejob_cluster()
    cluster.converge()
    cluster.start()
    cluster.converge()
    gets = cluster.gets
    cluster.reconcile()
    assert cluster.gets == gets + 1


def test_a_resource_being_deleted_is_left_alone() -> None:
    cluster = finetunejob_cluster()
    cluster.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert cluster.reconcile().create == ()
    assert cluster.gets == 0


@pytest.mark.parametrize("name", ["3b.v1-sft", "a" * 253, "x", "llama-3.1", "trailing-" + "y" * 40 + ".z"])
def test_any_legal_name_gives_legal_children(name: str) -> None:
    resource = make.finetunejob(name=name, compute={"gpusPerNode": 0, "nodes": 2})
    cluster = finetunejob_cluster(resource)
    live(cluster)
    for ref in cluster.created:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", ref.name), ref
        assert len(ref.name) + (len("-1023") if ref.kind == "Job" else 0) <= 63, ref


def test_a_job_made_again_under_its_name_starts_afresh() -> None:
    first, second = (finetunejob_cluster(make.finetunejob(uid=uid)) for uid in ("1", "2"))
    live(first)
    live(second)
    assert not set(first.created) & set(second.created)
