"""Suspension, and edits before and after the start."""

from hone.core.observed import Ref
from hone.core.settings import Settings
from tests.unit.core import make
from tests.unit.core.fake_cluster import finetunejob_world
from tests.unit.core.runs import finishing, preparing, results, training


def test_suspension_deletes_the_attempt_and_resuming_makes_the_next_one() -> None:
    world = training()
    world.edit(suspend=True).settle()
    assert results(world)[-1] == ("train", 1, "Suspended")
    assert world.status["phase"] == "Suspended"
    assert world.condition("Suspended") == ("True", "Suspended")
    assert world.condition("Ready") == ("False", "Suspended")
    assert world.condition("Reconciling")[0] == world.condition("Stalled")[0] == "False"
    assert not [ref for ref in world.objects if ref.kind == "Job" and "train" in ref.name]

    world.edit(suspend=False).settle()
    assert world.jobs()[-1] == "train-1", "its pods are still saving"
    world.drop_deleted_pods()
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.status["usage"]["retries"] == 0
    assert [reason for reason in world.reasons() if reason in ("Suspended", "Resumed")] == ["Suspended", "Resumed"]


def test_a_job_made_suspended_makes_nothing() -> None:
    world = finetunejob_world(suspend=True)
    world.settle()
    assert world.made == []
    assert world.status["phase"] == "Suspended"


def test_an_attempt_that_ended_before_it_could_be_suspended_counts() -> None:
    world = training()
    world.complete(make.trained())
    world.edit(suspend=True).settle()
    assert results(world)[-1] == ("train", 1, "Succeeded")
    assert world.jobs()[-1] == "train-1"


def test_an_edit_before_the_start_is_prepared_anew() -> None:
    world = preparing()
    world.start()
    first = world.status["runConfig"]
    world.edit(hyperparameters={"epochs": 1}).settle()
    world.drop_deleted_pods()
    world.settle()
    assert results(world) == [("prepare", 1, "Replaced"), ("prepare", 2, "Running")]
    assert world.status["runConfig"] != first
    assert Ref("v1", "ConfigMap", first) in world.objects
    world.complete(make.prepared())
    world.settle()
    volumes = world.job()["spec"]["template"]["spec"]["volumes"]
    assert world.status["runConfig"] in str(volumes)


def test_a_job_that_failed_before_the_start_may_be_mended() -> None:
    world = preparing()
    world.fail(64, make.verdict("BadInput", "spec.dataset.minSamples: 40 rows are too few"))
    world.settle()
    world.edit(dataset={**world.resource["spec"]["dataset"], "minSamples": 10}).settle()
    assert world.jobs() == ["prepare-1", "prepare-2"]
    assert world.condition("Failed")[0] == world.condition("Finished")[0] == "False"
    assert world.status["failures"] == {}
    assert "completionTime" not in world.status


def test_a_finished_job_only_takes_note_of_an_edit() -> None:
    world = finishing()
    world.complete(make.finished())
    world.settle()
    conditions = world.status["conditions"]
    world.edit(suspend=True).settle()
    assert world.status["observedGeneration"] == 2
    assert world.status["phase"] == "Succeeded"
    assert [(c["type"], c["status"]) for c in world.status["conditions"]] == [
        (c["type"], c["status"]) for c in conditions
    ]


def test_another_operator_release_does_not_touch_a_run() -> None:
    world = training()
    before = world.writes
    world.settings = Settings(trainer_image="trainer:next")
    world.settle()
    assert world.writes == before
