"""The lifecycle of a ModelDeployment: it waits for its job, serves it, follows one re-created, outlives one deleted."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from hone.core.names import OWNER_ANNOTATION, ROLE_LABEL, STEP_LABEL, UID_LABEL
from hone.core.observed import Ref
from hone.core.trim import trimmed
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def cluster(job: dict[str, Any] | None = None, **spec: Any) -> FakeCluster:
    fake = FakeCluster(make.modeldeployment(**spec)).add(make.claim("base-models"))
    return fake.add(job, make.artifact_claim()) if job else fake


def deployment(cluster: FakeCluster) -> dict[str, Any]:
    return next(obj for ref, obj in cluster.objects.items() if ref.kind == "Deployment")


def roll_out(cluster: FakeCluster) -> None:
    """The Deployment controller brings up all pods."""
    live = deployment(cluster)
    count = live["spec"].get("replicas", 1)
    live["status"] = {
        "observedGeneration": live["metadata"]["generation"],
        **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count),
    }


def served(**spec: Any) -> FakeCluster:
    """A cluster in which the job's artifact is served."""
    fake = cluster(make.complete_job(DIGEST), **spec)
    fake.converge()
    roll_out(fake)
    fake.converge()
    return fake


def owners(cluster: FakeCluster, claim: str = "job-output") -> list[str]:
    live = cluster.objects[Ref("v1", "PersistentVolumeClaim", claim)]
    return [owner["uid"] for owner in live["metadata"]["ownerReferences"]]


def test_it_waits_for_a_job_that_does_not_exist_yet() -> None:
    waiting = cluster()
    plan = waiting.converge()
    assert waiting.created == []
    assert waiting.condition("Progressing") == ("False", "JobNotFound")
    assert waiting.condition("Reconciling") == ("True", "JobNotFound")
    assert waiting.status["phase"] == "Waiting"
    assert plan.requeue_after is None


def test_it_waits_for_a_job_that_trains() -> None:
    waiting = cluster(make.finetunejob("job"))
    waiting.converge()
    assert waiting.created == []
    assert waiting.condition("Progressing") == ("Unknown", "WaitingForJob")


def test_it_owns_the_claim_before_it_serves() -> None:
    ready = cluster(make.complete_job(DIGEST))
    assert ready.reconcile().apply == (), "first the status names the claim"
    plan = ready.reconcile()
    assert [apply.body["kind"] for apply in plan.apply] == [
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "Service",
        "PodDisruptionBudget",
        "Deployment",
    ]
    assert plan.apply[0].field_manager.startswith("hone-mdep-")
    assert ready.resource["metadata"]["uid"] in owners(ready)
    assert not any(o.get("controller") for o in plan.apply[0].body["metadata"]["ownerReferences"])


def test_a_retained_claim_gets_no_owner() -> None:
    ready = cluster(make.complete_job(DIGEST))
    claim = ready.objects[Ref("v1", "PersistentVolumeClaim", "job-output")]
    claim["metadata"]["ownerReferences"] = []
    claim["metadata"]["annotations"]["hone.dev/retain"] = "true"
    ready.reconcile()
    kinds = [apply.body["kind"] for apply in ready.reconcile().apply]
    assert kinds == ["NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment"]


def test_it_is_ready_when_all_servers_of_the_revision_answer() -> None:
    ready = cluster(make.complete_job(DIGEST))
    ready.converge()
    assert ready.status["phase"] == "Progressing"
    assert ready.condition("Available")[0] == "False"
    assert ready.status["candidate"]["digest"] == DIGEST
    roll_out(ready)
    ready.converge()
    assert ready.status["phase"] == "Available"
    assert ready.condition("Available") == ("True", "ServersReady")
    assert ready.condition("Ready") == ("True", "Serving")
    assert ready.condition("Progressing") == ("False", "RolledOut")
    assert ready.status["stable"]["digest"] == DIGEST
    assert "candidate" not in ready.status
    assert ready.reasons() == ["JobNotFound", "RolloutStarted", "RolledOut"][1:]


def test_at_rest_nothing_is_written() -> None:
    ready = served()
    writes = ready.writes
    plan = ready.reconcile()
    assert (plan.apply, plan.status, plan.events) == ((), None, ())
    assert ready.writes == writes


def test_a_deleted_job_changes_nothing_but_a_condition() -> None:
    ready = served()
    del ready.objects[Ref("hone.dev/v1alpha1", "FineTuneJob", "job")]
    plan = ready.reconcile()
    assert (plan.apply, plan.delete) == ((), ())
    assert ready.condition("Ready") == ("True", "Serving")
    assert ready.condition("Available") == ("True", "ServersReady")
    assert ready.condition("Progressing") == ("False", "JobNotFound")
    assert ready.message("Progressing").endswith("still serving aaaaaaaa")
    assert ready.reasons()[-1] == "JobNotFound"


def test_a_spec_edit_is_rolled_out_though_the_job_is_deleted() -> None:
    ready = served()
    del ready.objects[Ref("hone.dev/v1alpha1", "FineTuneJob", "job")]
    ready.converge()
    ready.edit(runtime={"args": ["--max-model-len=512"]})
    ready.converge()
    assert "--max-model-len=512" in deployment(ready)["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_job_made_anew_replaces_the_artifact_once_it_is_complete() -> None:
    ready = served()
    old = ready.status["stable"]["revision"]
    job = make.complete_job(OTHER, uid="job-uid-2", claim="job2-output")
    training = {**job, "status": {}}
    ready.add(training, make.artifact_claim("job2-output", job_uid="job-uid-2"))
    ready.converge()
    assert ready.condition("Progressing") == ("Unknown", "WaitingForJob")
    assert ready.condition("Ready") == ("True", "Serving")

    ready.add(job)
    ready.converge()
    assert ready.status["candidate"]["digest"] == OTHER
    assert ready.status["stable"]["revision"] == old
    mdep = ready.resource["metadata"]["uid"]
    assert mdep in owners(ready) and mdep in owners(ready, "job2-output")

    roll_out(ready)
    plan = ready.reconcile()
    assert ready.status["stable"]["digest"] == OTHER
    (applied,) = plan.apply
    assert applied.body["metadata"]["name"] == "job-output"
    assert [owner["uid"] for owner in applied.body["metadata"]["ownerReferences"]] == ["job-uid"]
    ready.converge()


def test_scaling_touches_nothing_but_the_number() -> None:
    ready = served(replicas=1)
    ready.edit(replicas=3)
    plan = ready.reconcile()
    (apply,) = plan.apply
    assert apply.field_manager == "hone-scale"
    assert apply.body["spec"] == {"replicas": 3}
    assert ready.status["stable"]["digest"] == DIGEST


def test_replicas_that_the_spec_does_not_set_are_left_to_others() -> None:
    ready = served()
    assert "replicas" not in deployment(ready)["spec"]
    deployment(ready)["spec"]["replicas"] = 5
    assert ready.reconcile().apply == ()


def test_another_default_image_restarts_no_server() -> None:
    ready = served()
    ready.settings = replace(ready.settings, server_image="vllm:next", server_cpu_image="vllm-cpu:next")
    assert ready.reconcile().apply == ()


def test_a_hand_edit_of_the_deployment_stays_until_the_next_rollout() -> None:
    ready = served()
    container = deployment(ready)["spec"]["template"]["spec"]["containers"][0]
    image, container["image"] = container["image"], "by-hand"
    assert ready.reconcile().apply == ()
    ready.edit(runtime={"args": ["--seed=1"]}).converge()
    assert deployment(ready)["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_a_failed_job_is_never_served() -> None:
    failed = make.finetunejob("job")
    failed["status"] = {
        "conditions": [make.condition("Failed", "True", "BadInput", "spec.dataset.train: no rows")],
    }
    waiting = cluster(failed)
    waiting.converge()
    assert waiting.created == []
    assert waiting.condition("Stalled") == ("True", "JobFailed")
    assert "no rows" in waiting.message("Stalled")
    assert waiting.status["phase"] == "Failed"


def test_a_job_that_is_not_promotable_is_never_served() -> None:
    job = make.complete_job(DIGEST)
    job["status"]["conditions"] = [
        make.condition("Complete", "True", "Succeeded"),
        make.condition("Promotable", "False", "GateNotMet", "accuracy 0.81 < 0.86"),
    ]
    waiting = cluster(job)
    waiting.converge()
    assert waiting.created == []
    assert waiting.condition("Stalled") == ("True", "NotPromotable")


def test_a_foreign_service_is_left_alone() -> None:
    ready = cluster(make.complete_job(DIGEST))
    ready.converge()
    (name,) = [ref for ref in ready.objects if ref.kind == "Service"]
    other = cluster(make.complete_job(DIGEST))
    other.add({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name.name, "uid": "x"}, "spec": {}})
    plan = other.reconcile()
    assert plan.apply == ()
    assert other.condition("Stalled") == ("True", "NameConflict")
    assert plan.requeue_after == 60


def service_of(cluster: FakeCluster) -> dict[str, Any]:
    return next(obj for ref, obj in cluster.objects.items() if ref.kind == "Service")


@pytest.mark.parametrize(
    ("case", "edit"),
    [
        ("the selector", {"selector": {UID_LABEL: "other", STEP_LABEL: "serve"}}),
        ("where it leads", {"ports": [{"name": "http", "port": 80, "targetPort": 9000, "protocol": "TCP"}]}),
        ("our port is gone", {"ports": [{"name": "debug", "port": 81, "targetPort": 81, "protocol": "TCP"}]}),
    ],
)
def test_a_service_edited_by_hand_is_put_right(case: str, edit: dict[str, Any]) -> None:
    ready = served()
    expected = copy.deepcopy(service_of(ready)["spec"])
    service_of(ready)["spec"] |= edit
    ready.converge()
    assert service_of(ready)["spec"] == expected, case


def test_a_port_that_somebody_added_to_the_service_is_theirs() -> None:
    ready = served()
    service_of(ready)["spec"]["ports"].append({"name": "debug", "port": 81, "targetPort": 81, "protocol": "TCP"})
    assert ready.reconcile().apply == ()


def test_the_service_of_a_predecessor_is_waited_for() -> None:
    first = cluster(make.complete_job(DIGEST))
    first.converge()
    second = FakeCluster(make.modeldeployment(uid="mdep-2"))
    second.objects = first.objects
    plan = second.reconcile()
    assert plan.apply == ()
    assert second.condition("Reconciling") == ("True", "Terminating")
    assert plan.requeue_after == 2


def test_the_address_depends_on_the_name_alone() -> None:
    first, second = (FakeCluster(make.modeldeployment(uid=uid)) for uid in ("1", "2"))
    for each in (first, second):
        each.add(make.complete_job(DIGEST), make.artifact_claim())
        each.converge()
    assert first.status["url"] == second.status["url"]
    assert {r.name for r in first.created if r.kind == "Deployment"} != {
        r.name for r in second.created if r.kind == "Deployment"
    }


def test_an_image_that_cannot_be_pulled_is_told_with_the_kubelets_words() -> None:
    ready = cluster(make.complete_job(DIGEST))
    ready.converge()
    labels = deployment(ready)["spec"]["template"]["metadata"]["labels"]
    state = {"waiting": {"reason": "ErrImagePull", "message": "vllm:none: not found"}}
    ready.pods["s"] = make.pod("s", state=state, labels=labels).raw
    ready.converge()
    assert ready.condition("Progressing") == ("True", "ImagePullBackOff")
    assert "vllm:none: not found" in ready.message("Reconciling")
    assert ready.reasons().count("ImagePullBackOff") == 1
    ready.reconcile()
    assert ready.reasons().count("ImagePullBackOff") == 1


def test_a_crash_loop_tells_the_servers_last_words_and_stalls_at_the_deadline() -> None:
    ready = cluster(make.complete_job(DIGEST))
    ready.converge()
    labels = deployment(ready)["spec"]["template"]["metadata"]["labels"]
    pod = make.pod("s", phase="Running", state=make.RUNNING, labels=labels).raw
    last = make.exited(1, "ValueError: LoRA rank 64 is greater than max_lora_rank")
    pod["status"]["containerStatuses"][0] |= {"lastState": last, "ready": False}
    ready.pods["s"] = pod
    ready.converge()
    assert ready.condition("Progressing") == ("True", "CrashLoopBackOff")
    assert "LoRA rank 64" in ready.message("Progressing")
    deployment(ready)["status"] = {
        "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    }
    ready.converge()
    assert ready.condition("Stalled") == ("True", "CrashLoopBackOff")
    assert ready.status["phase"] == "Failed"


def checked(cluster: FakeCluster, state: dict[str, Any], last: dict[str, Any] | None = None) -> None:
    """A pod whose check of the artifact is in this state."""
    labels = deployment(cluster)["spec"]["template"]["metadata"]["labels"]
    pod = make.pod("s", state={"waiting": {"reason": "PodInitializing"}}, labels=labels).raw
    check = {"name": "verify", "ready": False, "state": state, "lastState": last or {}}
    pod["status"]["initContainerStatuses"] = [check]
    cluster.pods["s"] = trimmed({"apiVersion": "v1", "kind": "Pod", **pod})


def test_a_changed_artifact_is_not_served_and_the_status_says_which_file() -> None:
    ready = cluster(make.complete_job(DIGEST))
    ready.converge()
    failed = make.exited(64, "its files have the digest sha256:1 instead of sha256:2: 'config.json' has other content")
    backing_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    for state, last in ((failed, None), (backing_off, failed), (make.RUNNING, failed)):
        checked(ready, state, last)
        ready.converge()
        assert ready.condition("Stalled") == ("True", "ArtifactChanged"), state
        assert ready.condition("Available") == ("False", "ArtifactChanged")
        assert "'config.json' has other content" in ready.message("Stalled")
        assert ready.status["phase"] == "Failed"
    assert ready.reasons().count("ArtifactChanged") == 1
    # Once the files are as they were, the same pod passes.
    checked(ready, make.exited(0, ""), failed)
    ready.converge()
    assert ready.condition("Reconciling") == ("True", "RollingOut")


def test_a_check_that_cannot_run_is_no_changed_artifact() -> None:
    ready = cluster(make.complete_job(DIGEST))
    ready.converge()
    checked(ready, make.RUNNING, make.exited(1, "No module named hone_trainer.verify"))
    ready.converge()
    assert ready.condition("Reconciling") == ("True", "CrashLoopBackOff")
    assert "init container 'verify' ended with exit code 1" in ready.message("Reconciling")
    checked(ready, {"waiting": {"reason": "ErrImagePull", "message": "hone-trainer: not found"}})
    ready.converge()
    assert ready.condition("Reconciling") == ("True", "ImagePullBackOff")


def test_the_artifact_is_checked_before_the_server_starts_and_mounted_alone_and_read_only() -> None:
    pod = deployment(served())["spec"]["template"]["spec"]
    (check,), (server,) = pod["initContainers"], pod["containers"]
    assert check["command"] == ["python", "-m", "hone_trainer.verify"]
    assert check["args"] == ["/mnt/artifact/artifact", DIGEST]
    assert check["securityContext"] == server["securityContext"]
    of_claims = ("/mnt/artifact", "/mnt/model")
    mounts = [
        {mount["mountPath"]: mount for mount in container["volumeMounts"] if mount["mountPath"].startswith(of_claims)}
        for container in (check, server)
    ]
    whole = {"name": "claim-0", "mountPath": "/mnt/artifact", "readOnly": True}
    alone = {**whole, "mountPath": "/mnt/artifact/artifact", "subPath": "artifact"}
    assert mounts == [
        {"/mnt/artifact": whole},
        {"/mnt/artifact/artifact": alone, "/mnt/model": mounts[1]["/mnt/model"]},
    ]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["claim-0"]["persistentVolumeClaim"] == {"claimName": "job-output", "readOnly": True}


def with_base(digest: str = DIGEST, **job: Any) -> dict[str, Any]:
    """A job whose adapter has the digest of its base."""
    complete = make.complete_job(digest, **job)
    complete["status"]["artifact"]["baseDigest"] = "sha256:ba5e"
    return complete


def test_the_base_of_an_adapter_is_checked_as_well() -> None:
    ready = cluster(with_base())
    ready.converge()
    check = deployment(ready)["spec"]["template"]["spec"]["initContainers"][0]
    assert check["args"] == [
        *("/mnt/artifact/artifact", DIGEST),
        *("--base", "/mnt/model/tiny", "--base-digest", "sha256:ba5e"),
    ]
    mounted = {
        mount["mountPath"]: mount["readOnly"] for mount in check["volumeMounts"] if "/mnt/" in mount["mountPath"]
    }
    assert mounted == {"/mnt/artifact": True, "/mnt/model": True}


@pytest.mark.parametrize(
    "words",
    ["'model.safetensors' has other content", "its base model is not the one that it was trained on: 'a' was changed"],
)
def test_what_was_changed_while_another_model_is_served_leaves_that_one_serving(words: str) -> None:
    ready = cluster(with_base())
    ready.converge()
    roll_out(ready)
    ready.converge()
    ready.add(with_base(OTHER, uid="new-uid", claim="new-output"), make.artifact_claim("new-output", "new-uid"))
    ready.converge()
    strategy = deployment(ready)["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0, "no old server ends before a new one is ready"
    deployment(ready)["status"]["availableReplicas"] = 1
    checked(ready, make.exited(64, words))
    ready.converge()
    assert ready.condition("Stalled") == ("True", "ArtifactChanged")
    assert words in ready.message("Stalled")
    assert ready.condition("Available")[0] == "True"
    assert ready.status["stable"]["digest"] == DIGEST
    assert ready.status["candidate"]["digest"] == OTHER


def test_the_check_needs_nothing_that_the_server_does_not_need() -> None:
    spec = deployment(served(gpus=2, resources={"limits": {"memory": "64Gi"}}))["spec"]["template"]["spec"]
    (check,), (server,) = spec["initContainers"], spec["containers"]
    assert check["resources"] == {"limits": {"memory": "64Gi"}}
    assert server["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "2"}


def test_an_upgrade_of_the_operator_that_adds_the_check_restarts_no_server() -> None:
    ready = served()
    pod = deployment(ready)["spec"]["template"]["spec"]
    del pod["initContainers"]
    pod["containers"][0]["volumeMounts"][0] = {"name": "claim-0", "mountPath": "/mnt/artifact", "readOnly": True}
    before = copy.deepcopy(deployment(ready))
    assert ready.reconcile().apply == ()
    assert deployment(ready) == before
    assert ready.condition("Ready") == ("True", "Serving")


def of_an_earlier_release(**spec: Any) -> FakeCluster:
    """A cluster whose server was rendered before servers had these labels, and before status had revisions."""
    ready = served(**spec)
    template = deployment(ready)["spec"]["template"]["metadata"]
    for labels in (deployment(ready)["metadata"]["labels"], template["labels"]):
        del labels["hone.dev/deployment"], labels[ROLE_LABEL]
    del ready.status["revisions"]
    return ready


def test_an_upgrade_of_the_operator_that_adds_labels_restarts_no_server() -> None:
    ready = of_an_earlier_release()
    before, revision = copy.deepcopy(deployment(ready)), ready.status["stable"]["revision"]
    assert ready.reconcile().apply == ()
    assert deployment(ready) == before
    assert ready.condition("Ready") == ("True", "Serving")
    assert [each["revision"] for each in ready.status["revisions"]] == [revision]


def test_after_an_upgrade_the_service_has_the_old_and_the_new_pods_of_a_rollout() -> None:
    ready = of_an_earlier_release()
    old = dict(deployment(ready)["spec"]["template"]["metadata"]["labels"])
    selector = deployment(ready)["spec"]["selector"]
    ready.edit(servedName="renamed")
    ready.converge()
    new = deployment(ready)["spec"]["template"]["metadata"]["labels"]
    assert deployment(ready)["spec"]["selector"] == selector
    assert (old.get(ROLE_LABEL), new[ROLE_LABEL]) == (None, "stable")
    for labels in (old, new):
        assert service_of(ready)["spec"]["selector"].items() <= labels.items()


def test_each_role_shows_the_revision_and_the_number_of_its_pods() -> None:
    ready = cluster(make.complete_job(DIGEST), replicas=2)
    ready.reconcile()
    assert "revisions" not in ready.status, "no role has a Deployment"
    ready.converge()
    (stable,) = ready.status["revisions"]
    revision = ready.status["candidate"]["revision"]
    selector = f"{UID_LABEL}=mdep-uid,{STEP_LABEL}=serve"
    assert stable == {"role": "stable", "revision": revision, "replicas": 0, "readyReplicas": 0, "selector": selector}
    roll_out(ready)
    ready.converge()
    assert ready.status["revisions"] == [{**stable, "replicas": 2, "readyReplicas": 2}]


def test_what_a_deployment_and_its_service_select_by_never_changes() -> None:
    ready = served()
    immutable = {UID_LABEL: "mdep-uid", STEP_LABEL: "serve"}
    assert deployment(ready)["spec"]["selector"] == {"matchLabels": immutable}
    assert service_of(ready)["spec"]["selector"] == immutable


def test_an_artifact_whose_claim_is_gone_is_not_rolled_out() -> None:
    ready = served()
    ready.add(make.complete_job(OTHER, uid="job-uid-2", claim="nowhere"))
    plan = ready.reconcile()
    assert plan.apply == ()
    assert ready.condition("Ready") == ("True", "Serving")
    assert ready.condition("Progressing") == ("Unknown", "ArtifactNotFound")
    assert plan.requeue_after == 30


def test_children_point_back_to_the_resource() -> None:
    ready = served()
    for ref in ready.created:
        meta = ready.objects[ref]["metadata"]
        assert meta["annotations"][OWNER_ANNOTATION] == "ModelDeployment/bot"
        assert meta["labels"][UID_LABEL] == "mdep-uid"
    template = deployment(ready)["spec"]["template"]["metadata"]
    assert template["annotations"][OWNER_ANNOTATION] == "ModelDeployment/bot"


def gated(job: dict[str, Any], decision: str, message: str) -> dict[str, Any]:
    """The job with what its gate decided."""
    status = "True" if decision == "GatePassed" else "False"
    job["status"]["conditions"] = [
        make.condition("Complete", "True", "Succeeded"),
        make.condition("Promotable", status, decision, message),
    ]
    return job


def test_what_the_gate_refuses_is_not_served_until_the_gate_lets_it_pass() -> None:
    refused = cluster(gated(make.complete_job(DIGEST), "GateInconclusive", "30 rows"))
    refused.converge()
    assert refused.condition("Progressing") == ("False", "NotPromotable")
    assert "30 rows" in refused.message("Stalled")
    assert not [ref for ref in refused.objects if ref.kind == "Deployment"]
    refused.add(gated(make.complete_job(DIGEST), "GatePassed", ""))
    refused.converge()
    roll_out(refused)
    refused.converge()
    assert refused.status["stable"]["digest"] == DIGEST


def test_a_better_job_that_the_gate_refuses_leaves_what_is_served() -> None:
    live = served()
    live.add(gated(make.complete_job(OTHER, "job-uid-2", "job2-output"), "GateFailed", "0.1 < 0.2"))
    live.add(make.artifact_claim("job2-output", "job-uid-2"))
    live.converge()
    assert live.status["stable"]["digest"] == DIGEST
    assert live.condition("Available")[0] == "True"
    assert live.condition("Progressing") == ("False", "NotPromotable")
    assert "0.1 < 0.2" in live.message("Progressing") and "still serving aaaaaaaa" in live.message("Progressing")
