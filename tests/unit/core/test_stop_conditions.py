"""Suspension, and edits before and after the start."""

from dataclasses import replace

from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import finetunejob_cluster
from tests.unit.core.runs import finishing, preparing, results, training


def test_suspension_deletes_the_attempt_and_resuming_makes_the_next_one() -> None:
    cluster = training()
    cluster.edit(suspend=True).converge()
    assert results(cluster)[-1] == ("train", 1, "Suspended")
    assert cluster.status["phase"] == "Suspended"
    assert cluster.condition("Suspended") == ("True", "Suspended")
    assert cluster.condition("Ready") == ("False", "Suspended")
    assert cluster.condition("Reconciling")[0] == cluster.condition("Stalled")[0] == "False"
    assert not [ref for ref in cluster.objects if ref.kind == "Job" and "train" in ref.name]

    cluster.edit(suspend=False).converge()
    assert cluster.jobs()[-1] == "train-1", "its pods are still saving"
    cluster.drop_deleted_pods()
    cluster.converge()
    assert cluster.jobs()[-1] == "train-2"
    assert cluster.status["usage"]["retries"] == 0
    assert [reason for reason in cluster.reasons() if reason in ("Suspended", "Resumed")] == ["Suspended", "Resumed"]


def test_a_job_made_suspended_makes_nothing() -> None:
    cluster = finetunejob_cluster(suspend=True)
    cluster.converge()
    assert cluster.created == []
    assert cluster.status["phase"] == "Suspended"


def test_an_attempt_that_ended_before_it_could_be_suspended_counts() -> None:
    cluster = training()
    cluster.complete(make.trained())
    cluster.edit(suspend=True).converge()
    assert results(cluster)[-1] == ("train", 1, "Succeeded")
    assert cluster.jobs()[-1] == "train-1"


def test_an_edit_before_the_start_is_prepared_anew() -> None:
    cluster = preparing()
    cluster.start()
    first = cluster.status["runConfig"]
    cluster.edit(hyperparameters={"epochs": 1}).converge()
    cluster.drop_deleted_pods()
    cluster.converge()
    assert results(cluster) == [("prepare", 1, "Replaced"), ("prepare", 2, "Running")]
    assert cluster.status["runConfig"] != first
    assert Ref("v1", "ConfigMap", first) in cluster.objects
    cluster.complete(make.prepared())
    cluster.converge()
    volumes = cluster.job()["spec"]["template"]["spec"]["volumes"]
    assert cluster.status["runConfig"] in str(volumes)


def test_a_job_that_failed_before_the_start_may_be_mended() -> None:
    cluster = preparing()
    cluster.fail(64, make.verdict("BadInput", "spec.dataset.minSamples: 40 rows are too few"))
    cluster.converge()
    cluster.edit(dataset={**cluster.resource["spec"]["dataset"], "minSamples": 10}).converge()
    assert cluster.jobs() == ["prepare-1", "prepare-2"]
    assert cluster.condition("Failed")[0] == cluster.condition("Finished")[0] == "False"
    assert cluster.status["failures"] == {}
    assert "completionTime" not in cluster.status


def test_a_finished_job_only_takes_note_of_an_edit() -> None:
    cluster = finishing()
    cluster.complete(make.finished())
    cluster.converge()
    conditions = cluster.status["conditions"]
    cluster.edit(suspend=True).converge()
    assert cluster.status["observedGeneration"] == 2
    assert cluster.status["phase"] == "Succeeded"
    assert [(c["type"], c["status"]) for c in cluster.status["conditions"]] == [
        (c["type"], c["status"]) for c in conditions
    ]


def test_another_operator_release_does_not_touch_a_run() -> None:
    cluster = training()
    before = cluster.writes
    cluster.settings = replace(cluster.settings, trainer_image="trainer:next")
    cluster.converge()
    assert cluster.writes == before
