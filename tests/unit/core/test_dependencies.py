"""What the spec names and the user has yet to make."""

from typing import Any

import pytest

from hone.core.finetunejob.policies.dependencies import dependencies
from hone.core.finetunejob.run import FINISH, PREPARE, TRAIN, Run
from hone.core.finetunejob.steps import STEPS
from hone.core.ownership import claim_ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster


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
        ("one of several sources", {"dataset": {"train": {"sources": [
            {"name": "a", "claim": {"name": "base-models", "path": "x"}},
            {"name": "b", "configMap": {"name": "none", "key": "k"}}]}}},
         "ConfigMapNotFound", "spec.dataset.train.sources[1].configMap.name"),
        ("a chat template", {"dataset": {"train": {"claim": {"name": "base-models", "path": "x"}},
                                         "chatTemplate": {"configMap": {"name": "none", "key": "k"}}}},
         "ConfigMapNotFound", "spec.dataset.chatTemplate.configMap.name"),
        ("a reward model", {"objective": "GRPO", "reward": {"model": {"claim": {"name": "none", "path": "x"}}}},
         "PersistentVolumeClaimNotFound", "spec.reward.model.claim.name"),
        ("a reward function", {"objective": "GRPO", "reward": {"functions": [
            {"name": "F1"}, {"configMap": {"name": "none", "key": "k"}}]}},
         "ConfigMapNotFound", "spec.reward.functions[1].configMap.name"),
        ("a scorer", {"evaluation": {"scorers": [{"name": "a", "configMap": {"name": "none", "key": "k"}}]}},
         "ConfigMapNotFound", "spec.evaluation.scorers[0].configMap.name"),
        ("a benchmark on a claim", {"evaluation": {"benchmarks": [
            {"name": "b", "claim": {"name": "none", "path": "x"}}]}},
         "PersistentVolumeClaimNotFound", "spec.evaluation.benchmarks[0].claim.name"),
        ("a benchmark's key", {"evaluation": {"benchmarks": [
            {"name": "a", "claim": {"name": "base-models", "path": "x"}},
            {"name": "b", "configMap": {"name": "reviews", "key": "k"}}]}},
         "KeyNotFound", "spec.evaluation.benchmarks[1].configMap.key"),
        ("workspace", {"workspace": {"claimName": "none"}}, "PersistentVolumeClaimNotFound",
         "spec.workspace.claimName"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_by_its_field_and_nothing_is_made(
    case: str, spec: dict[str, Any], reason: str, field: str
) -> None:
    cluster = finetunejob_cluster(**spec)
    plan = cluster.converge()
    assert cluster.created == [], case
    assert cluster.condition("Validated") == ("Unknown", reason)
    assert cluster.message("Validated").startswith(f"{field}: ")
    assert cluster.condition("Reconciling") == ("True", reason)
    assert cluster.status["phase"] == "Pending"
    assert plan.requeue_after == 10
    assert cluster.reasons() == [reason]


def test_what_was_missing_may_come_later() -> None:
    cluster = finetunejob_cluster(model={"claim": {"name": "late", "path": "x"}})
    cluster.converge()
    cluster.add(make.claim("late")).converge()
    assert cluster.jobs() == ["prepare-1"]


READS_MUCH: dict[str, Any] = {
    "objective": "RLOO",
    "model": {"jobRef": {"name": "job"}},
    "reward": {
        "model": {"claim": {"name": "judges", "path": "x"}},
        "functions": [{"configMap": {"name": "rewards", "key": "f.py"}}],
    },
    "dataset": {
        "train": {"configMap": {"name": "reviews", "key": "train.jsonl"}},
        "test": {"claim": {"name": "held-out", "path": "x"}},
    },
    "workspace": {"claimName": "scratch"},
}
"""A spec with a dependency of every sort."""


def reading_much(kind: str) -> FakeCluster:
    """A job that has prepared a model of another job."""
    job = make.complete_job("sha256:1")
    job["status"]["artifact"]["kind"] = kind
    cluster = finetunejob_cluster(**READS_MUCH)
    cluster.add(job, make.artifact_claim(), make.config_map("rewards", **{"f.py": ""}))
    cluster.add(*(make.claim(name) for name in ("judges", "held-out", "scratch"))).converge()
    assert cluster.jobs() == ["prepare-1"]
    return cluster


def mounted(cluster: FakeCluster) -> set[str]:
    """The claims and ConfigMaps that the newest Job's pods mount, without the run's own."""
    volumes = cluster.job()["spec"]["template"]["spec"]["volumes"]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    maps = {v["configMap"]["name"] for v in volumes if "configMap" in v}
    return {name for name in claims | maps if not name.startswith("support-bot-")}


@pytest.mark.parametrize("kind", ["Adapter", "Model"])
def test_each_step_demands_what_its_pods_mount_and_nothing_else(kind: str) -> None:
    cluster = reading_much(kind)
    for step, result in ((PREPARE, make.prepared()), (TRAIN, make.trained()), (FINISH, None)):
        run = Run(cluster.resource, cluster.settings)
        assert mounted(cluster) == {each.ref.name for each in dependencies(run, STEPS[step])}, step
        if result:
            cluster.complete(result)
            cluster.converge()
    assert cluster.jobs() == ["prepare-1", "train-1", "finish-1"]


def test_what_prepare_alone_read_may_go_once_it_has() -> None:
    cluster = reading_much("Adapter")
    read = mounted(cluster)
    cluster.complete(make.prepared())
    for ref in [ref for ref in cluster.objects if ref.name in read - {"judges", "scratch"}]:
        cluster.objects.pop(ref)
    cluster.converge()
    assert cluster.jobs() == ["prepare-1", "train-1"]


@pytest.mark.parametrize(
    ("kind", "claim", "words"),
    [
        ("Model", "job-output", "run FineTuneJob 'job' again, then delete this job"),
        ("Adapter", "base-models", "create it again with the same model on it: FineTuneJob 'job' tuned that model"),
    ],
)
def test_a_missing_claim_of_another_jobs_model_is_told_by_the_field_of_the_spec(
    kind: str, claim: str, words: str
) -> None:
    cluster = reading_much(kind)
    if kind == "Model":
        cluster.complete(make.prepared())
    else:
        cluster.fail(75, make.verdict("Preempted"))
    cluster.objects.pop(claim_ref(claim))
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "PersistentVolumeClaimNotFound")
    message = cluster.message("Reconciling")
    assert message.startswith(
        f"spec.model.jobRef.name: namespace 'team-a' has no PersistentVolumeClaim {claim!r}; {words}"
    )


RETAINED: dict[str, Any] = {"annotations": {"hone.dev/retain": "true"}}
OWNED: dict[str, Any] = {
    "ownerReferences": [{"apiVersion": "hone.dev/v1alpha1", "kind": "ModelDeployment", "name": "bot", "uid": "m"}]
}
LABELED: dict[str, Any] = {"labels": {"hone.dev/uid": "job-uid", "hone.dev/step": "prepare"}}


@pytest.mark.parametrize(
    ("case", "claim", "owner"),
    [
        ("another job's artifact", make.artifact_claim("theirs"), "FineTuneJob 'job'"),
        ("an artifact that a deployment serves", make.claim("theirs", **OWNED), "ModelDeployment 'bot'"),
        ("a retained artifact", make.claim("theirs", **RETAINED), "a FineTuneJob"),
        ("another job's workspace", make.claim("theirs", **LABELED), "a FineTuneJob"),
    ],
)
def test_a_claim_of_another_resource_is_never_written_to(case: str, claim: dict[str, Any], owner: str) -> None:
    cluster = finetunejob_cluster(workspace={"claimName": "theirs"}).add(claim)
    cluster.converge()
    assert cluster.created == [], case
    assert cluster.condition("Stalled") == ("True", "ClaimReserved")
    message = cluster.message("Stalled")
    assert message.startswith(f"spec.workspace.claimName: PersistentVolumeClaim 'theirs' belongs to {owner}"), message
    assert message.endswith("name a claim that you created, or remove the field")
    assert cluster.reasons() == ["ClaimReserved"]
    cluster.edit(workspace={"claimName": "base-models"})
    cluster.converge()
    assert cluster.jobs() == ["prepare-1"]


def test_the_owner_of_a_claim_cannot_be_hidden_by_a_race_with_its_creation() -> None:
    # The claim appears between two steps of this run: each step checks again.
    cluster = finetunejob_cluster(workspace={"claimName": "theirs"}).add(make.claim("theirs"))
    cluster.converge()
    cluster.complete(make.prepared())
    cluster.add(make.artifact_claim("theirs"))
    cluster.converge()
    assert cluster.jobs() == ["prepare-1"]
    assert cluster.condition("Stalled") == ("True", "ClaimReserved")


@pytest.mark.parametrize("theirs", ["model", "dataset"])
def test_a_claim_of_another_resource_is_read_only_where_it_is_read(theirs: str) -> None:
    source = {"claim": {"name": "theirs", "path": "artifact"}}
    spec = {"model": source} if theirs == "model" else {"dataset": {"train": source}}
    cluster = finetunejob_cluster(**spec).add(make.artifact_claim("theirs"))
    cluster.converge()
    pod = cluster.job()["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if each.get("persistentVolumeClaim", {}).get("claimName") == "theirs"]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert volume["persistentVolumeClaim"]["readOnly"] is True
    assert mount["readOnly"] is True
