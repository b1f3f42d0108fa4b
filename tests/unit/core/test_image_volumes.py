"""Models and data in OCI images: mounted read-only, in status, and with a remedy where they cannot be."""

from typing import Any

import pytest

from hone.core.allowlists import NOT_ALLOWED, AllowLists
from hone.core.finetunejob.policies.image_volumes import NEEDS
from hone.core.finetunejob.reconcile import refused
from hone.core.finetunejob.resources.runconfig import config_map_name, run_config
from hone.core.finetunejob.run import FINISH, PREPARE, TRAIN, Run
from hone.core.settings import Settings
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster
from tests.unit.core.runs import finishing, preparing, training
from tests.unit.core.test_jobs import container, mounts, pod, rendered

MODEL = f"registry.example.com/team/model@sha256:{'a' * 64}"
ROWS = f"registry.example.com/team/rows:v1@sha256:{'b' * 64}"
IN_IMAGES: dict[str, Any] = {
    "model": {"image": {"reference": MODEL}},
    "dataset": {"train": {"image": {"reference": ROWS, "path": "rows/train.jsonl"}}},
}


def test_every_step_mounts_the_model_read_only_and_prepare_alone_the_rows() -> None:
    for step in (PREPARE, TRAIN, FINISH):
        body = rendered(step, **IN_IMAGES)
        images = [volume["image"] for volume in pod(body)["volumes"] if "image" in volume]
        read = [MODEL, ROWS] if step == PREPARE else [MODEL]
        assert images == [{"reference": reference, "pullPolicy": "IfNotPresent"} for reference in read]
        places = {mount["mountPath"]: mount for mount in container(body)["volumeMounts"]}
        assert places["/mnt/model"]["readOnly"] and ("/mnt/data/train" in places) == (step == PREPARE)
        assert all(each["readOnly"] for path, each in places.items() if path in ("/mnt/model", "/mnt/data/train"))


def test_an_image_that_is_used_twice_is_one_volume() -> None:
    model = {"image": {"reference": MODEL, "path": "base"}}
    body = rendered(TRAIN, objective="Distillation", model=model, teacher={"image": {"reference": MODEL}})
    assert len([volume for volume in pod(body)["volumes"] if "image" in volume]) == 1
    assert {"/mnt/model", "/mnt/teacher"} <= mounts(body).keys()


def test_paths_are_below_the_mount_and_an_adapter_is_merged() -> None:
    config = run_config(Run(make.finetunejob(**IN_IMAGES), Settings()))
    assert (config.paths.model, config.data.train) == ("/mnt/model", "/mnt/data/train/rows/train.jsonl")
    assert config.merge_output and config.model_name == MODEL and config.materialize == []


def test_another_digest_is_another_plan() -> None:
    runs = [
        Run(make.finetunejob(**{**IN_IMAGES, "model": {"image": {"reference": each}}}), Settings())
        for each in (MODEL, MODEL.replace("a" * 64, "c" * 64))
    ]
    assert len({config_map_name(run) for run in runs}) == len({run.spec_digest for run in runs}) == 2


def test_status_has_the_digests_once_the_images_were_read() -> None:
    assert "images" not in preparing(**IN_IMAGES).status
    assert finishing(**IN_IMAGES).status["images"] == [
        {"field": "spec.model.image.reference", "reference": MODEL},
        {"field": "spec.dataset.train.image.reference", "reference": ROWS},
    ]
    assert "images" not in finishing().status


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"])
def test_an_image_that_cannot_be_pulled_is_named_by_its_field(reason: str) -> None:
    cluster = preparing(**IN_IMAGES)
    waiting = {"reason": reason, "message": f'failed to resolve "{MODEL}": 403 Forbidden'}
    cluster.start({"waiting": waiting}, phase="Pending")
    cluster.converge()
    message = cluster.message("Reconciling")
    assert message.startswith("spec.model.image.reference: pod ") and "403 Forbidden" in message
    assert message.endswith("check its name and digest, and spec.compute.pod.imagePullSecrets")


def test_the_trainers_own_image_is_not_taken_for_one_of_them() -> None:
    cluster = preparing(**IN_IMAGES)
    cluster.start({"waiting": {"reason": "ErrImagePull", "message": 'no "trainer:1"'}}, phase="Pending")
    cluster.converge()
    assert "spec.model" not in cluster.message("Reconciling")


@pytest.mark.parametrize(("spec", "is_told"), [(IN_IMAGES, True), ({}, False)])
def test_a_runtime_without_image_volumes_is_told_with_what_they_need(spec: dict[str, Any], is_told: bool) -> None:
    cluster = preparing(**spec)
    cluster.start({"waiting": {"reason": "CreateContainerError", "message": 'failed to mkdir ""'}}, phase="Pending")
    cluster.converge()
    assert 'failed to mkdir ""' in cluster.message("Reconciling")
    assert (NEEDS in cluster.message("Reconciling")) is is_told


def test_a_secret_that_is_missing_is_no_matter_of_image_volumes() -> None:
    cluster = preparing(**IN_IMAGES)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "wandb" not found'}
    cluster.start({"waiting": waiting}, phase="Pending")
    cluster.converge()
    assert NEEDS not in cluster.message("Reconciling")


def test_a_kubelet_that_waits_for_the_volume_without_a_word_is_told_at_the_deadline() -> None:
    cluster = preparing(**IN_IMAGES, startDeadlineSeconds=60)
    cluster.start({"waiting": {"reason": "ContainerCreating"}}, phase="Pending")
    cluster.converge()
    cluster.later(61).converge()
    assert NEEDS in cluster.status["attempts"][-1]["failure"]["message"]


def _without_images(cluster: FakeCluster) -> None:
    """What an API server without image volumes stores: neither the volumes nor their mounts."""
    template = cluster.job()["spec"]["template"]["spec"]
    names = {volume["name"] for volume in template["volumes"] if "image" in volume}
    template["volumes"] = [volume for volume in template["volumes"] if volume["name"] not in names]
    others = [mount for mount in template["containers"][0]["volumeMounts"] if mount["name"] not in names]
    template["containers"][0]["volumeMounts"] = others


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_job_that_lost_its_image_volumes_ends_with_the_remedy(has_ended: bool) -> None:
    cluster = preparing(**IN_IMAGES)
    _without_images(cluster)
    cluster.start()
    if has_ended:
        cluster.fail(64, make.verdict("BadInput", "spec.model: there is no config.json"))
    cluster.converge()
    failure = cluster.status["attempts"][0]["failure"]
    assert failure["class"] == "NeverStarted" and failure["hint"] == NEEDS
    assert failure["message"].startswith("spec.model.image.reference: the API server has removed this volume")


@pytest.mark.parametrize(("spec", "is_told"), [(IN_IMAGES, True), ({}, False)])
def test_an_api_server_that_refuses_the_volume_is_told_with_what_it_needs(spec: dict[str, Any], is_told: bool) -> None:
    cluster = finetunejob_cluster(**spec)
    plan = cluster.reconcile()
    words = 'spec.template.spec.containers[0].volumeMounts[1].name: Not found: "image-0"'
    after = refused(cluster.resource, plan, "Job/prepare", words, cluster.now)
    [stalled] = [each["message"] for each in (after.status or {})["conditions"] if each["type"] == "Stalled"]
    assert words in stalled and (NEEDS in stalled) is is_told


def test_a_step_that_mounts_no_image_may_have_none() -> None:
    cluster = training(dataset=IN_IMAGES["dataset"])
    assert cluster.status["attempts"][-1]["result"] == "Running"


def test_images_are_held_to_the_administrators_list() -> None:
    cluster = preparing()
    cluster.settings = Settings(allow_lists=AllowLists(images=("registry.example.com/team/model@*",)))
    cluster.edit(**IN_IMAGES).converge()
    assert cluster.condition("Stalled") == ("True", NOT_ALLOWED)
    assert cluster.message("Stalled").startswith(f"spec.dataset.train.image.reference: {ROWS!r} is not allowed")
