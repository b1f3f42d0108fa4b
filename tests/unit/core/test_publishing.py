"""Copies of the artifact: made after the job is complete, also long after; without them the job is complete as well."""

import json
from typing import Any

import pytest

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.contract.results import PublishedModel, StepResult
from hone.core.children import ref_of
from hone.core.finetunejob.resources.networkpolicy import publish_policy
from hone.core.finetunejob.run import Run
from hone.core.kinds import KINDS
from hone.core.names import SPEC_ANNOTATION, digest
from hone.core.network import NetworkPeers
from hone.core.settings import Settings
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster, finetunejob_cluster
from tests.unit.core.runs import finishing, results, training
from tests.unit.core.test_scoring import scored

URI = "s3://tuned/bots/a"
SECRET = {"credentialsSecretRef": {"name": "store"}}
STORE = {"uri": URI, "s3": {"endpoint": "https://s3.example.com", "region": "eu-1"}, **SECRET}


def published(uri: str = URI) -> StepResult:
    """What the publish pod leaves."""
    return StepResult(step="publish", published=PublishedModel(uri=uri, digest="sha256:c0de", size_bytes=7))


def refused(failure_class: str = "BadInput", reason: str = "AccessDenied") -> StepResult:
    """What it leaves if the destination refuses the copy."""
    verdict = make.verdict(failure_class, f"spec.output: {URI}: no", hint="Grant it.").verdict
    assert verdict is not None
    return StepResult(step="publish", verdict=verdict.model_copy(update={"reason": reason}))


def publishing(**output: Any) -> FakeCluster:
    """A cluster in which the job is complete, and its artifact is being published."""
    cluster = finishing(output={**STORE, **output})
    cluster.complete(make.finished())
    cluster.converge()
    return cluster


def environment(cluster: FakeCluster) -> dict[str, dict[str, Any]]:
    """The variables of the newest Job's container."""
    (container,) = cluster.job()["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry for entry in container["env"]}


def test_a_job_without_a_uri_publishes_nothing() -> None:
    cluster = scored()
    assert cluster.jobs()[-1] == "finish-1"
    assert not [each for each in cluster.status["conditions"] if each["type"] == "Published"]


def test_the_job_is_complete_while_its_model_is_published_and_finished_afterwards() -> None:
    cluster = publishing()
    assert cluster.jobs()[-1] == "publish-1"
    assert cluster.status["phase"] == "Publishing"
    assert cluster.condition("Complete") == ("True", "Succeeded"), "servers need not wait"
    assert cluster.condition("Finished")[0] == "False"
    assert cluster.condition("Published") == ("False", "Publishing")
    cluster.complete(published())
    cluster.converge()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert cluster.condition("Published") == ("True", "Published")
    copy = cluster.status["output"]["published"]
    assert (copy["uri"], copy["digest"], copy["sizeBytes"]) == (URI, "sha256:c0de", 7)
    assert copy["time"].endswith("Z")
    assert cluster.reasons()[-2:] == ["Succeeded", "Published"]
    writes = cluster.writes
    cluster.converge()
    assert cluster.writes == writes, "and it rests"


def test_the_pod_is_told_what_to_copy_and_to_where() -> None:
    cluster = publishing()
    attempt = json.loads(environment(cluster)["HONE_ATTEMPT"]["value"])
    assert attempt == {
        "number": 1,
        "publish": {
            "uri": URI,
            "digest": "sha256:a57e",
            "s3": {"endpoint": "https://s3.example.com", "region": "eu-1"},
        },
    }


AWS = {
    "AWS_ACCESS_KEY_ID": ("AWS_ACCESS_KEY_ID", False),
    "AWS_SECRET_ACCESS_KEY": ("AWS_SECRET_ACCESS_KEY", False),
    "AWS_SESSION_TOKEN": ("AWS_SESSION_TOKEN", True),
}


@pytest.mark.parametrize(
    ("uri", "keys"),
    [
        (URI, AWS),
        ("hf://acme/bot", {"HF_TOKEN": ("HF_TOKEN", False)}),
        ("oci://registry.local/bot:v1", {"DOCKER_AUTH_CONFIG": (".dockerconfigjson", False)}),
    ],
)
def test_only_the_publish_pod_has_the_credentials(uri: str, keys: dict[str, tuple[str, bool]]) -> None:
    cluster = finetunejob_cluster(output={"uri": uri, **SECRET})
    for result in (make.prepared(), make.trained(), make.finished()):
        cluster.converge()
        assert '"store"' not in json.dumps(cluster.job()["spec"]), cluster.jobs()[-1]
        cluster.complete(result)
    cluster.converge()
    theirs = {
        name: (entry["valueFrom"]["secretKeyRef"]["key"], entry["valueFrom"]["secretKeyRef"].get("optional", False))
        for name, entry in environment(cluster).items()
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert theirs == keys


def test_a_variable_of_the_users_does_not_replace_a_credential() -> None:
    env = [{"name": "AWS_SECRET_ACCESS_KEY", "value": "mine"}]
    cluster = finishing(output=STORE, compute={"gpusPerNode": 0, "pod": {"env": env}})
    cluster.complete(make.finished())
    cluster.converge()
    assert "value" not in environment(cluster)["AWS_SECRET_ACCESS_KEY"]


def test_the_pod_mounts_the_artifact_read_only_and_nothing_else_of_the_run() -> None:
    pod = publishing().job()["spec"]["template"]["spec"]
    claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [{"claimName": claims[0]["claimName"], "readOnly": True}]
    assert claims[0]["claimName"].endswith("-output")
    assert "nvidia.com/gpu" not in json.dumps(pod)


@pytest.mark.parametrize("reason", ["AccessDenied", "CredentialsRefused", "CredentialsExpired", "NotFound"])
def test_a_refusal_fails_no_job_and_is_a_condition(reason: str) -> None:
    cluster = publishing()
    cluster.fail(64, refused(reason=reason))
    cluster.converge()
    assert cluster.jobs()[-1] == "publish-1", "another attempt would meet the same"
    assert cluster.condition("Published") == ("False", reason)
    assert "Grant it." in cluster.message("Published")
    assert cluster.condition("Failed")[0] == "False"
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifact"]["digest"] == "sha256:a57e"
    assert "no" in cluster.status["notPublished"]
    assert cluster.reasons()[-1] == "NotPublished"


def test_what_may_pass_is_tried_again_later_and_later() -> None:
    cluster = publishing()
    for number, seconds in enumerate((30, 60, 120), 1):
        cluster.fail(70, refused("Crashed", "Unreachable"))
        cluster.converge()
        cluster.later(seconds - 2).converge()
        assert cluster.jobs()[-1] == f"publish-{number}", "too early"
        assert cluster.condition("Published") == ("False", "Unreachable")
        assert cluster.condition("Finished")[0] == "False"
        cluster.later(2).converge()
        assert cluster.jobs()[-1] == f"publish-{number + 1}"
    cluster.fail(70, refused("Crashed", "Unreachable"))
    cluster.later(600).converge()
    assert cluster.jobs()[-1] == "publish-4"
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert cluster.condition("Published") == ("False", "Unreachable")


def test_a_finished_job_publishes_without_training_or_scoring_again() -> None:
    cluster = scored()
    completed = cluster.status["completionTime"]
    cluster.later(600).edit(output={"uri": "hf://acme/bot", **SECRET}).converge()
    assert cluster.jobs() == ["prepare-1", "train-1", "finish-1", "publish-1"]
    cluster.complete(published("hf://acme/bot"))
    cluster.converge()
    assert cluster.condition("Published") == ("True", "Published")
    assert cluster.status["completionTime"] == completed
    assert [reason for reason in cluster.reasons() if reason in ("Succeeded", "ScoredAgain")] == ["Succeeded"]


@pytest.mark.parametrize("edit", [{"uri": "s3://tuned/bots/b"}, {"publishRequest": "2"}, {"s3": {"region": "eu-2"}}])
def test_an_edit_publishes_again(edit: dict[str, Any]) -> None:
    cluster = publishing()
    cluster.fail(64, refused())
    cluster.converge()
    cluster.edit(output={**STORE, **edit}).converge()
    assert cluster.jobs()[-1] == "publish-2"
    assert "notPublished" not in cluster.status
    assert not [name for name in cluster.status["failures"] if name.startswith("publish.")]
    cluster.complete(published())
    cluster.converge()
    assert cluster.condition("Published")[0] == "True"
    assert results(cluster)[-1] == ("publish", 2, "Succeeded")


def test_an_edit_replaces_the_attempt_that_publishes() -> None:
    cluster = publishing()
    cluster.edit(output={**STORE, "uri": "s3://tuned/bots/b"}).converge()
    cluster.drop_deleted_pods()
    cluster.converge()
    assert results(cluster)[-2:] == [("publish", 1, "Replaced"), ("publish", 2, "Running")]
    assert "bots/b" in environment(cluster)["HONE_ATTEMPT"]["value"]


def test_a_uri_that_is_removed_ends_the_attempt_and_the_condition() -> None:
    cluster = publishing()
    cluster.edit(output={}).converge()
    cluster.drop_deleted_pods()
    cluster.converge()
    assert results(cluster)[-1] == ("publish", 1, "Replaced")
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert not [each for each in cluster.status["conditions"] if each["type"] == "Published"]


@pytest.mark.parametrize("end", ["published", "refused"])
def test_a_uri_that_is_removed_later_is_forgotten_and_published_again_when_it_returns(end: str) -> None:
    cluster = publishing()
    cluster.complete(published()) if end == "published" else cluster.fail(64, refused())
    cluster.converge()
    cluster.edit(output={}).converge()
    assert not [each for each in cluster.status["conditions"] if each["type"] == "Published"]
    assert not {"publishedSpec", "notPublished"} & set(cluster.status)
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert cluster.jobs()[-1] == "publish-1"
    cluster.edit(output=STORE).converge()
    assert cluster.jobs()[-1] == "publish-2"


@pytest.mark.parametrize("kind", ["Job", "NetworkPolicy"])
def test_what_the_api_server_refuses_to_make_publishes_nothing_and_counts_for_nothing(kind: str) -> None:
    cluster = publishing()
    cluster.complete(published())
    cluster.converge()
    before = cluster.status["publishedSpec"]
    cluster.edit(output={**STORE, "uri": "s3://tuned/bots/b"})
    cluster.objects = {ref: each for ref, each in cluster.objects.items() if ref.kind != "NetworkPolicy"}
    cluster.refuse = (kind,)
    cluster.reconcile()
    assert cluster.condition("Stalled") == ("True", "Refused")
    assert cluster.status["publishedSpec"] == before
    cluster.refuse = ()
    cluster.converge()
    assert cluster.jobs()[-1] == "publish-2"
    assert cluster.condition("Published") == ("False", "Publishing")
    assert "bots/b" in environment(cluster)["HONE_ATTEMPT"]["value"]


def test_a_refused_job_keeps_why_the_last_place_refused_the_copy() -> None:
    cluster = publishing()
    cluster.fail(64, refused())
    cluster.converge()
    cluster.edit(output={**STORE, "uri": "s3://tuned/bots/b"})
    cluster.refuse = ("Job",)
    cluster.reconcile()
    assert cluster.status["failures"] == {"publish.BadInput": 1}
    cluster.edit(output=STORE)
    cluster.converge()
    assert cluster.jobs()[-1] == "publish-1", "there, nothing has changed"
    assert cluster.condition("Published") == ("False", "AccessDenied")
    assert cluster.condition("Finished") == ("True", "Succeeded")


def test_to_publish_needs_the_artifact_and_no_workspace() -> None:
    cluster = scored()
    claims = {ref.name.rpartition("-")[2]: ref for ref in cluster.objects if ref.kind == "PersistentVolumeClaim"}
    del cluster.objects[claims["workspace"]], cluster.objects[claims["output"]]
    cluster.edit(output=STORE).converge()
    assert cluster.jobs()[-1] == "finish-1"
    assert cluster.condition("Reconciling") == ("True", "PersistentVolumeClaimNotFound")
    assert cluster.message("Reconciling").startswith("spec.output.uri: ")
    cluster.objects[claims["output"]] = cluster.written[claims["output"]]
    cluster.later(10).converge()
    assert cluster.jobs()[-1] == "publish-1"
    assert claims["workspace"] not in cluster.objects, "its pod would not mount it"


def test_to_publish_a_model_of_another_job_does_not_take_that_jobs_claim_again() -> None:
    cluster = finetunejob_cluster(model={"jobRef": {"name": "job"}})
    cluster.add(make.complete_job("sha256:1"), make.artifact_claim()).converge()
    for result in (make.prepared(), make.trained(), make.finished()):
        cluster.complete(result)
        cluster.converge()
    cluster.edit(output=STORE).converge()
    assert cluster.jobs()[-1] == "publish-1"
    claim = cluster.objects[ref_of(make.artifact_claim())]
    assert [owner["uid"] for owner in claim["metadata"]["ownerReferences"]] == ["job-uid"]


def test_the_watches_are_not_believed_that_the_artifacts_claim_is_gone() -> None:
    cluster = scored()
    claim = next(ref for ref in cluster.objects if ref.name.endswith("-output"))
    kind = KINDS["FineTuneJob"]
    assert kind.may_lack(cluster.subject(), claim), "nothing needs it"
    cluster.edit(output=STORE)
    assert not kind.may_lack(cluster.subject(), claim)


def test_a_pod_that_does_not_start_names_the_secret_and_the_claims_access_modes() -> None:
    cluster = publishing(**SECRET)
    cluster.later(cluster.resource["spec"].get("startDeadlineSeconds", 3600)).converge()
    failure = cluster.status["attempts"][-1]["failure"]
    assert failure["class"] == "NeverStarted"
    assert "credentialsSecretRef" in failure["hint"] and "ReadWriteMany" in failure["hint"]
    assert cluster.condition("Published") == ("False", "NeverStarted")


@pytest.mark.parametrize("step", ["training", "complete"])
def test_a_run_of_an_earlier_release_with_an_empty_output_is_not_begun_again(step: str) -> None:
    cluster = training(output={}) if step == "training" else scored(output={})
    spec = {key: value for key, value in cluster.resource["spec"].items() if key != "suspend"}
    earlier = digest(json.dumps(spec, sort_keys=True), length=16)
    assert cluster.status["preparedSpec"] != earlier, "output: {} is not counted any more"
    cluster.resource["status"] |= {name: earlier for name in ("preparedSpec", "scoredSpec") if name in cluster.status}
    jobs = cluster.jobs()
    for output in ({}, STORE, {}):
        run = Run(cluster.edit(output=output).resource, Settings())
        assert run.spec_digest == earlier, output
    cluster.converge()
    assert cluster.jobs() == jobs
    assert Run(cluster.edit(output={"size": "9Gi"}).resource, Settings()).spec_digest != earlier


def test_a_uri_that_is_edited_early_prepares_nothing_again() -> None:
    cluster = finetunejob_cluster(output={"size": "5Gi"})
    cluster.converge()
    cluster.edit(output={"size": "5Gi", **STORE}).converge()
    assert results(cluster) == [("prepare", 1, "Running")]
    with_none, with_one = (Run(make.finetunejob(**spec), Settings()) for spec in ({}, {"output": STORE}))
    assert with_none.spec_digest == with_one.spec_digest


def test_the_operator_may_die_at_any_write_of_a_publication() -> None:
    def live(crash_at: int | None) -> FakeCluster:
        cluster = scored()
        cluster.edit(output=STORE)
        cluster.crash_at = None if crash_at is None else cluster.writes + crash_at
        for _ in range(8):
            try:
                cluster.converge()
            except Crash:
                continue
            if cluster.jobs()[-1] == "publish-1" and cluster.condition("Finished")[0] == "False":
                cluster.complete(published())
        return cluster

    before = scored().writes
    whole = live(None)
    assert whole.condition("Published") == ("True", "Published")
    for number in range(1, whole.writes - before + 1):
        cluster = live(number)
        assert cluster.jobs() == ["prepare-1", "train-1", "finish-1", "publish-1"], f"crash at write {number}"
        assert cluster.condition("Published") == ("True", "Published")
        assert cluster.status["publishedSpec"] == cluster.job()["metadata"]["annotations"][SPEC_ANNOTATION]


def test_a_job_that_is_suspended_publishes_later() -> None:
    cluster = publishing()
    cluster.edit(suspend=True).converge()
    assert results(cluster)[-1] == ("publish", 1, "Suspended")
    cluster.drop_deleted_pods()
    cluster.edit(suspend=False).converge()
    assert cluster.jobs()[-1] == "publish-2"


def test_the_publish_pod_may_reach_public_addresses_by_https_alone() -> None:
    policy = publish_policy(Run(make.finetunejob(output=STORE), Settings(network_policies=NetworkPeers())))
    assert policy["spec"]["podSelector"]["matchLabels"] == {"hone.dev/uid": "11111111-aaaa", "hone.dev/step": "publish"}
    assert policy["spec"]["ingress"] == []
    [rule] = policy["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443]


def test_a_status_of_an_earlier_release_has_no_output() -> None:
    assert FineTuneJobStatus.from_dict({"phase": "Succeeded"}).output is None
