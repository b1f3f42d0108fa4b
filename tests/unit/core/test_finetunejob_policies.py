"""What a FineTuneJob does about failures, suspension, edits, missing things and slow starts."""

from typing import Any

import pytest

from hone.contract.progress import Progress
from hone.core.kinds import KINDS
from hone.core.observed import Pod, ProgressReading, Ref
from hone.core.settings import Settings
from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.world import World, finetunejob_world

JOB = KINDS["FineTuneJob"]


def preparing(**spec: Any) -> World:
    world = finetunejob_world(**spec)
    world.settle()
    return world


def training(**spec: Any) -> World:
    """A world in which all trainer pods run."""
    world = preparing(**spec)
    world.complete(make.prepared())
    world.settle()
    world.start()
    world.settle()
    return world


def finishing(**spec: Any) -> World:
    world = training(**spec)
    world.complete(make.trained())
    world.settle()
    return world


def results(world: World) -> list[tuple[str, int, str]]:
    return [(a["step"], a["number"], a["result"]) for a in world.status["attempts"]]


# Failures.


def test_bad_input_fails_at_once_with_field_and_remedy() -> None:
    world = preparing()
    world.fail(64, make.verdict("BadInput", "spec.dataset.train: line 3 is no JSON", hint="write one object per line"))
    world.settle()
    assert world.jobs() == ["prepare-1"]
    assert world.status["phase"] == "Failed"
    assert world.condition("Validated") == ("False", "BadInput")
    assert world.condition("Failed") == ("True", "BadInput")
    assert world.condition("Finished") == ("True", "Failed")
    assert world.condition("Stalled") == ("True", "BadInput")
    assert world.message("Failed") == "spec.dataset.train: line 3 is no JSON (write one object per line)"
    assert world.reasons()[-1] == "FailedBadInput"
    assert "startTime" not in world.status


def test_a_crashed_attempt_is_followed_by_the_next_one_up_to_the_limit() -> None:
    world = training(retry={"limit": 1})
    world.fail(70, make.verdict("Crashed", "boom"))
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.status["usage"]["retries"] == 1
    world.fail(70, make.verdict("Crashed", "boom"))
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.condition("Failed") == ("True", "RetryLimitExceeded")
    assert "boom" in world.message("Failed")
    assert world.status["failures"] == {"train.Crashed": 2}


def test_each_attempt_is_told_its_number() -> None:
    world = training()
    world.fail(70)
    world.settle()
    env = {e["name"]: e.get("value") for e in world.job()["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["HONE_ATTEMPT"] == '{"number":2}'


def test_preemption_costs_no_retry() -> None:
    world = training(retry={"limit": 0})
    for _ in range(30):
        world.fail(75, make.verdict("Preempted"))
        for pod in world.pods.values():
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "Preemption"}]
        world.settle()
        world.start()
        world.later(300)
    assert world.jobs()[-1] == "train-31"
    assert world.status["usage"]["retries"] == 0
    assert len(world.status["attempts"]) == 20
    assert ("prepare", 1, "Succeeded") in results(world)


def test_attempts_that_are_evicted_at_once_again_and_again_wait_between_them() -> None:
    world = training()
    waits: list[float | None] = []
    for _ in range(9):
        world.later(5).fail(137)
        for pod in world.pods.values():
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "Evicted"}]
        plan = world.settle()
        if world.condition("Reconciling")[1] == "BackOff":
            waits.append(plan.requeue_after)
            world.later(plan.requeue_after or 0).settle()
        world.start()
        world.settle()
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    world.later(3600).fail(75)
    world.settle()
    assert results(world)[-1] == ("train", 11, "Running"), "an attempt that has worked begins the count anew"


def test_the_next_attempt_waits_until_the_last_ones_pods_have_ended() -> None:
    world = training(compute={"gpusPerNode": 0, "nodes": 2})
    world.fail(70)
    survivor = next(iter(world.pods_of(world.job()["metadata"]["name"])))
    survivor["status"]["phase"] = "Running"
    plan = world.settle()
    assert world.jobs()[-1] == "train-1"
    assert plan.requeue_after == 10
    assert world.condition("Reconciling") == ("True", "WaitingForPods")
    assert world.message("Reconciling").endswith(f"yet to end: {survivor['metadata']['name']} on node-1")
    survivor["status"]["phase"] = "Failed"
    world.settle()
    assert world.jobs()[-1] == "train-2"


def test_a_job_deleted_by_hand_is_a_preemption() -> None:
    world = training()
    world.remove_job(Ref("batch/v1", "Job", world.job()["metadata"]["name"]))
    world.drop_deleted_pods()
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert world.status["failures"] == {"train.Preempted": 1}


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_a_missed_result_is_made_again_by_its_own_step(step: str) -> None:
    world = preparing() if step == "prepare" else finishing()
    world.complete(make.prepared() if step == "prepare" else make.finished())
    world.pods.clear()
    world.settle()
    assert world.jobs()[-1] == f"{step}-2"
    assert world.status["failures"] == {f"{step}.NodeLost": 1}
    assert "train-2" not in world.jobs()


def test_training_is_never_repeated_for_its_message() -> None:
    world = training()
    world.complete("")
    world.pods.clear()
    world.settle()
    assert world.jobs()[-1] == "finish-1"
    assert world.status["progress"]["percent"] == 100


def test_an_image_that_leaves_no_result_is_given_up() -> None:
    world = preparing(retry={"limit": 0})
    world.complete("hello")
    world.settle()
    assert world.condition("Failed") == ("True", "RetryLimitExceeded")
    assert "trainer image" in world.message("Failed")


def test_a_complete_job_whose_pod_still_seems_to_run_is_looked_at_again() -> None:
    world = preparing()
    world.start()
    world.job()["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    plan = world.settle()
    assert plan.requeue_after == 2
    assert results(world) == [("prepare", 1, "Running")]


def test_the_deadline_of_an_attempt_ends_the_run() -> None:
    world = training(activeDeadlineSeconds=60)
    assert world.job()["spec"]["activeDeadlineSeconds"] == 60
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    world.pods.clear()
    world.job()["status"] = {"conditions": [condition]}
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")


# Starting.


def test_trouble_at_the_start_is_shown_at_once_and_told_once() -> None:
    world = preparing()
    world.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
    world.settle()
    assert world.condition("Reconciling") == ("True", "ImagePullBackOff")
    assert world.condition("Validated") == ("Unknown", "ImagePullBackOff")
    assert "no such image" in world.message("Reconciling")
    world.start({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, phase="Pending")
    world.settle()
    assert world.reasons().count("ImagePullBackOff") == 1
    assert world.status["phase"] == "Preparing"


def test_an_unschedulable_pod_is_shown_with_the_schedulers_words() -> None:
    world = preparing()
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    world.start({}, phase="Pending", conditions=[scheduled])
    world.settle()
    assert world.condition("Ready") == ("False", "Unschedulable")
    assert "0/1 nodes" in world.message("Ready")


def test_a_job_without_pods_is_told_of() -> None:
    world = preparing()
    assert world.look().requeue_after == 30
    world.later(31).settle()
    assert world.condition("Reconciling") == ("True", "NoPods")


def test_what_does_not_start_in_time_is_deleted_and_tried_again_later_at_most_five_times() -> None:
    world = preparing(startDeadlineSeconds=60)
    for attempt in range(1, 6):
        world.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
        world.settle()
        world.later(61).settle()
        assert world.status["failures"] == {"prepare.NeverStarted": attempt}
        assert world.jobs()[-1] == f"prepare-{attempt}"
        world.drop_deleted_pods()
        plan = world.settle()
        if attempt < 5:
            assert world.condition("Reconciling")[1] == "BackOff"
            assert plan.requeue_after == 30 * 2 ** (attempt - 1)
            world.later(plan.requeue_after).settle()
    assert world.condition("Failed") == ("True", "NeverStarted")
    assert "no such image" in world.message("Failed")
    assert not [ref for ref in world.objects if ref.kind == "Job"]


def test_a_gang_of_which_one_pod_does_not_start_is_deleted() -> None:
    world = preparing(compute={"gpusPerNode": 0, "nodes": 2}, startDeadlineSeconds=60)
    world.complete(make.prepared())
    world.settle()
    world.start()
    late = world.pods_of(world.job()["metadata"]["name"])[1]
    late["status"] |= {"phase": "Pending", "containerStatuses": []}
    world.settle()
    assert world.status["phase"] == "Queued"
    world.later(61).settle()
    assert world.status["failures"] == {"train.NeverStarted": 1}


def test_a_gang_that_has_started_has_no_start_deadline_any_more() -> None:
    world = training(startDeadlineSeconds=60)
    world.later(3600).settle()
    assert results(world)[-1] == ("train", 1, "Running")


def test_a_job_that_is_queued_has_no_start_deadline() -> None:
    world = preparing(startDeadlineSeconds=60)
    world.job()["spec"]["suspend"] = True
    plan = world.later(3600).settle()
    assert results(world) == [("prepare", 1, "Running")]
    assert plan.requeue_after is None, "the Job's own event tells when the queue lets it go"
    assert world.condition("Reconciling")[1] == "Preparing"


def test_the_start_deadline_begins_when_the_queue_lets_the_job_go() -> None:
    world = preparing(startDeadlineSeconds=60)
    world.job()["spec"]["suspend"] = True
    world.later(3600).settle()
    world.job()["spec"]["suspend"] = False
    world.job()["status"] = {"startTime": rfc3339(world.now), "active": 1}
    world.start({"waiting": {"reason": "ContainerCreating"}}, phase="Pending")
    plan = world.later(10).settle()
    assert results(world) == [("prepare", 1, "Running")]
    assert plan.requeue_after == 50
    world.later(51).settle()
    assert world.status["failures"] == {"prepare.NeverStarted": 1}


def test_a_job_that_a_queue_took_back_and_let_go_again_has_to_start_anew() -> None:
    world = training(startDeadlineSeconds=60)
    (old,) = world.pods_of(world.job()["metadata"]["name"])
    world.job()["spec"]["suspend"] = True
    old["metadata"]["deletionTimestamp"] = rfc3339(world.now)
    world.settle()
    assert world.status["phase"] == "Queued"
    world.job()["spec"]["suspend"] = False
    world.job()["status"] = {"startTime": rfc3339(world.now), "active": 1}
    old["status"]["phase"] = "Failed"
    world.pods = {"seen ending": old}
    world.start({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, phase="Pending")
    world.settle()
    assert world.status["phase"] == "Queued"
    assert world.condition("Reconciling")[1] == "ImagePullBackOff"
    world.later(61).settle()
    assert world.status["failures"] == {"train.NeverStarted": 1}


def test_a_gang_whose_lost_pod_was_not_seen_has_started() -> None:
    world = training(compute={"gpusPerNode": 0, "nodes": 2}, startDeadlineSeconds=60)
    job = world.job()["metadata"]["name"]
    del world.pods[f"{job}-1"]  # while no operator ran
    world.pods[f"{job}-0"]["metadata"]["deletionTimestamp"] = rfc3339(world.now)
    world.job()["status"] = {"active": 0, "terminating": 1, "failed": 1}
    world.later(3600).settle()
    assert results(world)[-1] == ("train", 1, "Running")
    world.fail(75)
    world.drop_deleted_pods()
    world.settle()
    assert world.status["failures"] == {"train.Preempted": 1}


# What the spec names.


@pytest.mark.parametrize(
    ("case", "spec", "reason", "field"),
    [
        ("model", {"model": {"claim": {"name": "none", "path": "x"}}}, "PersistentVolumeClaimNotFound",
         "spec.model.claim.name"),
        ("data in a ConfigMap", {"dataset": {"train": {"configMap": {"name": "none", "key": "k"}}}},
         "ConfigMapNotFound", "spec.dataset.train.configMap.name"),
        ("its key", {"dataset": {"train": {"configMap": {"name": "reviews", "key": "k"}}}},
         "KeyNotFound", "spec.dataset.train.configMap.key"),
        ("data on a claim", {"dataset": {"train": {"claim": {"name": "none", "path": "x"}}}},
         "PersistentVolumeClaimNotFound", "spec.dataset.train.claim.name"),
        ("test data", {"dataset": {"train": {"claim": {"name": "base-models", "path": "x"}},
                                   "test": {"configMap": {"name": "none", "key": "k"}}}},
         "ConfigMapNotFound", "spec.dataset.test.configMap.name"),
        ("workspace", {"workspace": {"claimName": "none"}}, "PersistentVolumeClaimNotFound",
         "spec.workspace.claimName"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_by_its_field_and_nothing_is_made(
    case: str, spec: dict[str, Any], reason: str, field: str
) -> None:
    world = finetunejob_world(**spec)
    plan = world.settle()
    assert world.made == [], case
    assert world.condition("Validated") == ("Unknown", reason)
    assert world.message("Validated").startswith(f"{field}: ")
    assert world.condition("Reconciling") == ("True", reason)
    assert world.status["phase"] == "Pending"
    assert plan.requeue_after == 10
    assert world.reasons() == [reason]


def test_what_was_missing_may_come_later() -> None:
    world = finetunejob_world(model={"claim": {"name": "late", "path": "x"}})
    world.settle()
    world.add(make.claim("late")).settle()
    assert world.jobs() == ["prepare-1"]


def test_a_spec_that_only_the_code_rejects_stalls() -> None:
    world = finetunejob_world(objective="Telepathy")
    plan = world.settle()
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.message("Stalled").startswith("spec.objective: ")
    assert plan.requeue_after is None
    assert world.reasons() == ["InvalidSpec"]
    world.edit(objective="SFT").settle()
    assert world.jobs() == ["prepare-1"]
    assert world.condition("Stalled")[0] == "False"


@pytest.mark.parametrize("kind", ["Job", "ConfigMap", "PersistentVolumeClaim", "Service"])
def test_a_foreign_object_with_a_childs_name_is_left_alone(kind: str) -> None:
    spec: dict[str, Any] = {"compute": {"gpusPerNode": 0, "nodes": 2}}
    known = training(**spec)
    name = next(ref for ref in known.made if ref.kind == kind)
    world = finetunejob_world(**spec)
    foreign = {"apiVersion": name.api_version, "kind": kind, "metadata": {"name": name.name, "uid": "x"}, "spec": {}}
    world.add(foreign)
    plan = world.settle()
    assert world.condition("Stalled") == ("True", "NameConflict")
    assert name.name in world.message("Stalled")
    assert world.made == []
    assert plan.requeue_after == 60
    assert world.reasons() == ["NameConflict"]
    del world.objects[name]
    world.settle()
    assert world.jobs() == ["prepare-1"]


# Suspension and edits.


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


# Progress.


def reading(world: World, **values: Any) -> ProgressReading:
    target = JOB.progress_target(world.resource, tuple(Pod(pod) for pod in world.pods.values()))
    assert target is not None
    values = {"pod_uid": target.pod_uid, "observed_time": 1_767_225_600.0, **values}
    return ProgressReading(target.pod_uid, Progress(**values))


def test_the_pod_of_rank_zero_is_asked() -> None:
    world = training(compute={"gpusPerNode": 0, "nodes": 2})
    target = JOB.progress_target(world.resource, tuple(Pod(pod) for pod in world.pods.values()))
    assert target is not None and target.pod_ip == "10.0.0.1"
    assert JOB.progress_target(preparing().resource, ()) is None


def test_progress_is_shown() -> None:
    world = training()
    world.progress = reading(
        world, step=90, total_steps=300, loss=1.23456, seconds_per_step=4, tokens_per_second=812.34, checkpoint_step=60
    )
    plan = world.look()
    assert world.condition("ProgressAvailable") == ("True", "Reporting")
    assert world.status["progress"] == {
        "step": 90,
        "totalSteps": 300,
        "percent": 30,
        "epoch": 0.0,
        "loss": "1.235",
        "tokensPerSecond": 812.3,
        "eta": "14m",
        "estimatedCompletionTime": "2026-01-01T00:14:00Z",
        "observedTime": "2026-01-01T00:00:00Z",
    }
    assert world.status["checkpoint"] == {"step": 60}
    assert plan.requeue_after == 10
    assert world.look().status is None


@pytest.mark.parametrize(
    ("case", "change", "reason"),
    [
        ("no answer", {"progress": None, "error": "timed out"}, "Unreachable"),
        ("the address is another pod's", {"progress": Progress(pod_uid="someone")}, "OtherPod"),
    ],
)
def test_unreachable_is_not_stuck(case: str, change: dict[str, Any], reason: str) -> None:
    world = training()
    world.progress = reading(world, step=90, total_steps=300)
    world.look()
    world.progress = ProgressReading(world.progress.pod_uid, **change)
    world.look()
    assert world.condition("ProgressAvailable") == ("False", reason)
    assert world.status["progress"]["step"] == 90
    assert world.status["phase"] == "Training"


@pytest.mark.parametrize(
    "values",
    [
        {"observed_time": 1e14},
        {"seconds_per_step": 9e14, "step": 1, "total_steps": 10**12},
        {"seconds_per_step": 3e5, "total_steps": 1000, "observed_time": 9.9e10},
    ],
)
def test_unbelievable_times_are_not_shown(values: dict[str, Any]) -> None:
    world = training()
    world.progress = reading(world, **values)
    world.look()
    assert world.condition("ProgressAvailable") == ("True", "Reporting")


def test_a_reading_of_an_earlier_attempt_is_not_taken() -> None:
    world = training()
    world.progress = ProgressReading("pod-of-before", Progress(step=299, total_steps=300))
    world.look()
    assert world.condition("ProgressAvailable") == ("Unknown", "NotAskedYet")
    assert "progress" not in world.status


# Figures.


def test_gpu_seconds_end_with_the_pods_though_the_operator_sees_it_late() -> None:
    world = training(compute={"gpusPerNode": 1})
    world.complete(make.trained())
    world.later(86_400).settle()
    assert world.status["usage"]["gpuSeconds"] == 60


def test_gpu_seconds_are_those_of_training_and_finish() -> None:
    world = training(compute={"nodes": 2, "gpusPerNode": 4})
    world.later(100)
    world.complete(make.trained())  # its containers began 60 s ago
    world.settle()
    assert world.status["usage"]["gpuSeconds"] == 2 * 4 * 60
    world.later(60)
    world.complete(make.finished())
    world.settle()
    assert world.status["usage"]["gpuSeconds"] == 2 * 4 * 60 + 60


def test_the_spec_is_frozen_from_the_first_trainer_job_on() -> None:
    world = preparing()
    world.complete(make.prepared())
    world.later(5).settle()
    assert world.status["startTime"] == "2026-01-01T00:00:05Z"


def test_the_plans_warnings_are_told() -> None:
    world = preparing()
    world.complete(make.prepared(warnings=["only 40 rows"]))
    world.settle()
    assert world.condition("Validated") == ("True", "ValidatedWithWarnings")
    assert "PlanWarning" in world.reasons()


def test_a_refused_write_is_told_in_the_servers_words() -> None:
    world = finetunejob_world()
    plan = JOB.refused(world.resource, "Job/x", "exceeded quota: pods", world.now)
    world.execute(plan)
    assert world.condition("Stalled") == ("True", "Refused")
    assert "Job/x" in world.message("Stalled") and "exceeded quota" in world.message("Stalled")
    assert JOB.refused(world.resource, "Job/x", "exceeded quota: pods", world.now).status is None
