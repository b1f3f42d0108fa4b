"""Jobs that read another job's model: what they wait for, what they keep, and what they give back."""

from typing import Any

import pytest

from hone.api.finetunejob import FineTuneJobSpec
from hone.api.finetunejob_status import FineTuneJobStatus
from hone.core.children import ref_of
from hone.core.finetunejob import FINETUNEJOB
from hone.core.finetunejob.policies import upstream
from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster, finetunejob_cluster
from tests.unit.core.test_finetunejob_lifecycle import LIFECYCLE, live

OUTPUT = Ref("v1", "PersistentVolumeClaim", "job-output")
JOB = Ref("hone.dev/v1alpha1", "FineTuneJob", "job")
FOLLOWS: dict[str, Any] = {"model": {"jobRef": {"name": "job"}}}


def unfinished(name: str = "job", **status: Any) -> dict[str, Any]:
    """A FineTuneJob that has not ended."""
    return {**make.finetunejob(name, f"{name}-uid"), "status": status}


def failed(kind: str = "Failed") -> dict[str, Any]:
    """One that cannot continue."""
    return unfinished(phase="Failed", conditions=[make.condition(kind, "True", "BadInput", "no rows")])


def complete(kind: str = "Adapter", digest: str = "sha256:1", uid: str = "job-uid") -> dict[str, Any]:
    """One that has made a model."""
    job = make.complete_job(digest, uid, claim="job-output")
    job["status"]["artifact"] |= {"kind": kind, "baseDigest": "sha256:ba5e"}
    return job


def following(*upstream: dict[str, Any], **spec: Any) -> FakeCluster:
    """A job that reads the model of `job`, and what there is of that."""
    cluster = finetunejob_cluster(**{**FOLLOWS, **spec})
    return cluster.add(make.artifact_claim(), *upstream)


def owners(cluster: FakeCluster) -> set[str]:
    """uids of the owners of the artifact's claim."""
    return {owner["uid"] for owner in cluster.objects[OUTPUT]["metadata"]["ownerReferences"]}


def run_config(cluster: FakeCluster) -> str:
    """What the run's pods are told."""
    ref = Ref("v1", "ConfigMap", cluster.status["runConfig"])
    return str(cluster.objects[ref]["data"]["run.json"])


@pytest.mark.parametrize(
    ("case", "job", "state", "reason", "words"),
    [
        ("is not there", None, "Reconciling", "JobNotFound", "spec.model.jobRef.name: namespace 'team-a' has no"),
        ("is new", unfinished(), "Reconciling", "WaitingForJob", "waiting for FineTuneJob 'job' (Pending)"),
        ("trains", unfinished(phase="Training", progress={"step": 2, "totalSteps": 5, "percent": 40}), "Reconciling",
         "WaitingForJob", "waiting for FineTuneJob 'job' (Training, 40 %)"),
        ("has failed", failed(), "Stalled", "JobFailed", "FineTuneJob 'job' failed: no rows; fix it, or delete it"),
        ("is stalled", failed("Stalled"), "Stalled", "JobStalled", "FineTuneJob 'job' cannot continue: no rows"),
    ],
)  # fmt: skip
def test_a_job_waits_for_the_one_whose_model_it_reads(
    case: str, job: dict[str, Any] | None, state: str, reason: str, words: str
) -> None:
    cluster = following(*([job] if job else []))
    cluster.converge()
    assert cluster.created == [] and cluster.status["phase"] == "Pending", case
    assert cluster.condition(state) == ("True", reason)
    assert cluster.condition("Ready") == ("False", reason)
    assert cluster.message(state).startswith(words)
    assert cluster.condition("Finished")[0] == "False"
    assert cluster.reasons() == ([] if reason == "WaitingForJob" else [reason]), "told once, and only what is wrong"
    cluster.add(complete())
    cluster.converge()
    assert cluster.jobs() == ["prepare-1"], "it continues as soon as that one is complete"


def test_a_job_that_failed_after_its_start_cannot_be_mended_by_an_edit() -> None:
    job = failed()
    job["status"]["startTime"] = "2026-01-01T00:00:00Z"
    cluster = following(job)
    cluster.converge()
    assert "failed: no rows; delete it and apply it again" in cluster.message("Stalled")


def test_progress_of_the_other_makes_no_events() -> None:
    cluster = following(unfinished(phase="Training", progress={"step": 1, "totalSteps": 5, "percent": 20}))
    cluster.converge()
    cluster.add(unfinished(phase="Training", progress={"step": 2, "totalSteps": 5, "percent": 40})).converge()
    assert "40 %" in cluster.message("Ready") and cluster.reasons() == []


def test_a_job_is_woken_by_the_one_it_waits_for_until_it_has_begun() -> None:
    cluster = following()
    assert FINETUNEJOB.follows(cluster.resource) == (JOB,)
    cluster.add(complete()).converge()
    assert cluster.jobs() == ["prepare-1"] and FINETUNEJOB.follows(cluster.resource) == ()


def test_another_scoring_owns_the_claim_again_while_it_reads_the_base() -> None:
    cluster = following(complete())
    live(cluster)
    assert owners(cluster) == {"job-uid"}
    cluster.edit(evaluation={"maxNewTokens": 8}).reconcile()
    assert cluster.jobs() == LIFECYCLE and owners(cluster) == {"job-uid", "11111111-aaaa"}
    cluster.converge()
    assert cluster.jobs() == [*LIFECYCLE, "finish-2"]
    cluster.complete(make.finished())
    cluster.converge()
    assert cluster.condition("Finished") == ("True", "Succeeded") and owners(cluster) == {"job-uid"}


def test_the_claim_is_owned_before_a_pod_is_made_and_given_back_at_the_end() -> None:
    cluster = following(complete())
    cluster.reconcile()
    assert owners(cluster) == {"job-uid"} and cluster.status["models"]["model"]["claim"] == "job-output"
    cluster.reconcile()
    assert owners(cluster) == {"job-uid", "11111111-aaaa"} and cluster.created == []
    live(cluster)
    assert cluster.jobs() == LIFECYCLE and cluster.status["phase"] == "Succeeded"
    assert owners(cluster) == {"job-uid"}
    model = cluster.status["models"]["model"]
    assert (model["jobUid"], model["digest"], model["baseClaim"]) == ("job-uid", "sha256:1", "base-models")


@pytest.mark.parametrize("how", ["bad data", "no pod ever starts"])
def test_a_job_that_fails_gives_the_claim_back(how: str) -> None:
    cluster = following(complete(), startDeadlineSeconds=30)
    cluster.converge()
    assert "11111111-aaaa" in owners(cluster)
    if how == "bad data":
        cluster.fail(64, make.verdict("BadInput"))
    for _ in range(20):
        cluster.converge()
        cluster.drop_deleted_pods()
        if cluster.status["phase"] == "Failed":
            break
        cluster.later(31)
        if how != "bad data" and cluster.job() and not cluster.pods:
            cluster.start(
                state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, phase="Pending"
            )
        cluster.converge()
        cluster.drop_deleted_pods()
        cluster.later(700)
    assert cluster.status["phase"] == "Failed"
    assert owners(cluster) == {"job-uid"}


def test_a_retained_claim_gets_no_owner() -> None:
    cluster = following(complete())
    meta = cluster.objects[OUTPUT]["metadata"]
    meta["annotations"]["hone.dev/retain"] = "true"
    del meta["ownerReferences"]
    live(cluster)
    assert cluster.status["phase"] == "Succeeded"
    assert "ownerReferences" not in cluster.objects[OUTPUT]["metadata"]


def test_another_job_under_the_name_changes_nothing_of_a_run_that_has_begun() -> None:
    cluster = following(complete())
    cluster.converge()
    config = run_config(cluster)
    cluster.objects.pop(JOB)
    cluster.objects[OUTPUT]["metadata"]["ownerReferences"] = [
        owner for owner in cluster.objects[OUTPUT]["metadata"]["ownerReferences"] if owner["uid"] != "job-uid"
    ]  # garbage collection
    cluster.add(unfinished())
    live(cluster)
    assert cluster.jobs() == LIFECYCLE and run_config(cluster) == config
    assert cluster.status["models"]["model"]["digest"] == "sha256:1"


def test_until_then_the_newest_job_of_the_name_is_followed() -> None:
    cluster = following(complete())
    data = cluster.objects.pop(Ref("v1", "ConfigMap", "reviews"))
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "ConfigMapNotFound")
    assert "11111111-aaaa" in owners(cluster)
    created_again = complete(digest="sha256:2", uid="job-uid-2")
    created_again["status"]["artifact"]["claim"] = "job-output-2"
    cluster.add(unfinished()).converge()
    assert cluster.condition("Reconciling") == ("True", "WaitingForJob")
    assert owners(cluster) == {"job-uid"} and "models" not in cluster.status
    cluster.add(created_again, make.artifact_claim("job-output-2", "job-uid-2"), data).converge()
    assert cluster.jobs() == ["prepare-1"]
    assert cluster.status["models"]["model"]["jobUid"] == "job-uid-2"


def test_an_edit_before_the_start_looks_for_the_model_anew() -> None:
    cluster = following(complete())
    cluster.converge()
    cluster.edit(model={"claim": {"name": "base-models", "path": "tiny"}}).converge()
    cluster.drop_deleted_pods()
    cluster.converge()
    assert cluster.jobs() == ["prepare-1", "prepare-2"]
    assert owners(cluster) == {"job-uid"} and "models" not in cluster.status


def deleted(cluster: FakeCluster, retained: bool) -> None:
    """The other job is deleted; of its claim nothing is left that owns it but us."""
    cluster.objects.pop(JOB)
    meta = cluster.objects[OUTPUT]["metadata"]
    meta["ownerReferences"] = [owner for owner in meta["ownerReferences"] if owner["uid"] != "job-uid"]
    if retained:
        meta["annotations"]["hone.dev/retain"] = "true"
        del meta["ownerReferences"]


OWN = {"model": {"claim": {"name": "base-models", "path": "tiny"}}}
JUDGED: dict[str, Any] = {**OWN, "objective": "RLOO", "reward": {"model": {"jobRef": {"name": "job"}}}}
TAUGHT: dict[str, Any] = {**OWN, "objective": "Distillation", "teacher": {"jobRef": {"name": "job"}}}


@pytest.mark.parametrize(
    ("spec", "objective", "words"),
    [
        (JUDGED, "SFT", "spec.reward.model.jobRef.name: FineTuneJob 'job' has objective SFT, whose model does not"),
        (JUDGED, "Classification", "spec.reward.model.jobRef.name: FineTuneJob 'job' has objective Classification"),
        (JUDGED, "Reward", None),
        (TAUGHT, "Reward", "spec.teacher.jobRef.name: FineTuneJob 'job' has objective Reward, whose model does not"),
        (TAUGHT, "Distillation", None),
        (FOLLOWS, "Classification", "spec.model.jobRef.name: FineTuneJob 'job' has objective Classification, whose"),
        (FOLLOWS, "GRPO", None),
        ({**FOLLOWS, "objective": "Reward"}, "Reward", None),
        ({**FOLLOWS, "objective": "Reward"}, "SFT", None),
        ({**FOLLOWS, "objective": "Reward"}, "Classification", "spec.model.jobRef.name: FineTuneJob 'job' has"),
    ],
)  # fmt: skip
def test_a_job_that_makes_another_kind_of_model_is_told_before_it_has_trained(
    spec: dict[str, Any], objective: str, words: str | None
) -> None:
    job = unfinished(phase="Training")
    job["spec"]["objective"] = objective
    cluster = following(job, **spec)
    cluster.converge()
    assert cluster.condition("Stalled" if words else "Reconciling") == (
        "True",
        "JobUnfit" if words else "WaitingForJob",
    )
    assert words is None or cluster.message("Stalled").startswith(words)
    assert cluster.reasons() == (["JobUnfit"] if words else [])


@pytest.mark.parametrize("how", ["gone", "gone, its claim retained", "about to go"])
def test_an_edit_before_the_start_keeps_the_model_of_a_job_that_was_deleted(how: str) -> None:
    cluster = following(complete())
    cluster.converge()
    retained = "retained" in how
    if how.startswith("gone"):
        deleted(cluster, retained)
    else:
        cluster.objects[JOB]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.edit(hyperparameters={"epochs": 2}).converge()
    assert cluster.jobs() == ["prepare-1", "prepare-2"]
    assert cluster.status["models"]["model"]["jobUid"] == "job-uid"
    assert retained or "11111111-aaaa" in owners(cluster)


@pytest.mark.parametrize("edit", ["another job", "a claim that is about to go"])
def test_nothing_else_is_kept_of_a_job_that_was_deleted(edit: str) -> None:
    cluster = following(complete())
    cluster.converge()
    deleted(cluster, retained=False)
    if edit == "another job":
        cluster.edit(model={"jobRef": {"name": "other"}}).converge()
        assert "'other'" in cluster.message("Reconciling")
    else:
        cluster.objects[OUTPUT]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        cluster.edit(hyperparameters={"epochs": 2}).converge()
    assert cluster.condition("Reconciling") == ("True", "JobNotFound")
    assert cluster.jobs() == ["prepare-1"] and "models" not in cluster.status


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("job-output", "was on PersistentVolumeClaim 'job-output', which is gone; delete that job"),
        ("base-models", "tuned the model on PersistentVolumeClaim 'base-models', which is gone; create that"),
    ],
)
def test_a_model_whose_claim_is_gone_is_told_and_looked_for_again(claim: str, words: str) -> None:
    cluster = following(complete())
    gone = cluster.objects.pop(Ref("v1", "PersistentVolumeClaim", claim))
    plan = cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "ArtifactNotFound")
    assert words in cluster.message("Reconciling") and plan.requeue_after == 10
    assert cluster.message("Reconciling").startswith("spec.model.jobRef.name: ")
    cluster.add(gone).converge()
    assert cluster.jobs() == ["prepare-1"]


@pytest.mark.parametrize(
    ("case", "others", "words"),
    [
        ("itself", {"support-bot": "support-bot"}, "a FineTuneJob cannot wait for itself"),
        ("each other", {"support-bot": "a", "a": "support-bot"}, "support-bot → a → support-bot"),
        ("in a circle", {"support-bot": "a", "a": "b", "b": "support-bot"}, "support-bot → a → b → support-bot"),
    ],
)
def test_jobs_that_wait_for_each_other_are_told_so(case: str, others: dict[str, str], words: str) -> None:
    cluster = finetunejob_cluster(model={"jobRef": {"name": others.pop("support-bot")}})
    for name, follows in others.items():
        cluster.add(make.finetunejob(name, f"{name}-uid", model={"jobRef": {"name": follows}}))
    cluster.converge()
    assert cluster.created == [], case
    assert cluster.condition("Stalled") == ("True", "JobCycle")
    assert words in cluster.message("Stalled")


def test_a_job_whose_spec_the_code_rejects_is_waited_for_like_any_other() -> None:
    cluster = following({**unfinished(), "spec": {"objective": "of another release"}})
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "WaitingForJob")


def test_a_circle_that_others_make_is_none_of_ours() -> None:
    cluster = finetunejob_cluster(model={"jobRef": {"name": "a"}})
    for name, follows in {"a": "b", "b": "a"}.items():
        cluster.add(make.finetunejob(name, f"{name}-uid", model={"jobRef": {"name": follows}}))
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "WaitingForJob")


ARTIFACTS = [{"field": "spec.model.jobRef.name", "path": "/mnt/model/artifact", "digest": "sha256:1"}]
"""What prepare compares with the digest that the other job reported."""


def test_an_adapter_is_merged_by_prepare_which_alone_mounts_both() -> None:
    cluster = following(complete("Adapter"))
    mounts = mounts_by_step(cluster)
    assert mounts["prepare"] >= {("job-output", "/mnt/model"), ("base-models", "/mnt/model-base")}
    for step in ("train", "finish"):
        assert not {path for _, path in mounts[step]} & {"/mnt/model", "/mnt/model-base"}
    assert "/mnt/workspace/models" in {path for _, path in mounts["train"]}
    config = run_config_of(cluster)
    (merge,) = config["merges"]
    assert (merge["adapter"], merge["base"]) == ("/mnt/model/artifact", "/mnt/model-base/tiny")
    assert merge["merged"] == config["paths"]["model"] and merge["merged"].startswith("/mnt/workspace/models/")
    assert (merge["field"], merge["baseDigest"]) == ("spec.model", "sha256:ba5e")
    assert config["artifacts"] == ARTIFACTS
    assert config["mergeOutput"] and config["modelName"] == "job"


def test_a_whole_model_is_read_where_it_lies() -> None:
    cluster = following(complete("Model"))
    mounts = mounts_by_step(cluster)
    assert all(("job-output", "/mnt/model") in mounts[step] for step in ("prepare", "train", "finish"))
    config = run_config_of(cluster)
    assert config["paths"]["model"] == "/mnt/model/artifact" and config["merges"] == []
    assert config["artifacts"] == ARTIFACTS
    assert config["mergeOutput"], "else its adapter would need a claim that may go with the other job"


@pytest.mark.parametrize(
    ("spec", "merged"),
    [({}, False), ({"output": {"merge": "Always"}}, True), ({"output": {"merge": "Never"}}, False)],
)
def test_an_adapter_of_a_model_of_the_users_own_is_merged_where_it_is_asked_for(
    spec: dict[str, Any], merged: bool
) -> None:
    cluster = finetunejob_cluster(**spec)
    live(cluster)
    assert run_config_of(cluster)["mergeOutput"] is merged


def test_a_job_that_reads_two_models_waits_for_both_and_keeps_both() -> None:
    cluster = following(unfinished(), objective="RLOO", reward={"model": {"jobRef": {"name": "judge"}}})
    cluster.converge()
    assert "waiting for FineTuneJob 'job'" in cluster.message("Ready")
    cluster.add(complete("Adapter")).converge()
    assert cluster.condition("Reconciling") == ("True", "JobNotFound")
    assert cluster.message("Reconciling").startswith("spec.reward.model.jobRef.name: ")
    judge = make.complete_job("sha256:2", "judge-uid", claim="judge-output")
    judge["metadata"]["name"], judge["spec"]["objective"] = "judge", "Reward"
    judge["status"]["artifact"] |= {"kind": "Model", "api": "Reward"}
    cluster.add(judge, make.artifact_claim("judge-output", "judge-uid")).converge()
    scored = Ref("v1", "PersistentVolumeClaim", "judge-output")
    assert len(owners(cluster)) == 2
    assert {owner["uid"] for owner in cluster.objects[scored]["metadata"]["ownerReferences"]} > {"judge-uid"}
    mounts = mounts_by_step(cluster)
    assert all(("judge-output", "/mnt/reward-model") in mounts[step] for step in ("prepare", "train", "finish"))
    paths = run_config_of(cluster)["paths"]
    assert paths["rewardModel"] == "/mnt/reward-model/artifact" and paths["model"].startswith("/mnt/workspace/models/")
    assert owners(cluster) == {"job-uid"}
    assert {owner["uid"] for owner in cluster.objects[scored]["metadata"]["ownerReferences"]} == {"judge-uid"}


def test_a_finish_that_leaves_an_adapter_over_another_jobs_model_names_no_claim_for_servers() -> None:
    cluster = following(complete("Model"))
    live(cluster)
    assert "modelClaim" not in cluster.status["artifact"]


def mounts_by_step(cluster: FakeCluster) -> dict[str, set[tuple[str, str]]]:
    """(claim, path) of every mount of a claim in the pods of each step of a whole lifecycle."""
    live(cluster)
    mounted = {}
    for ref in cluster.created:
        if ref.kind == "Job":
            job = cluster.written[ref]
            spec = job["spec"]["template"]["spec"]
            names = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in spec["volumes"]}
            mounts = spec["containers"][0]["volumeMounts"]
            mounted[job["metadata"]["labels"]["hone.dev/step"]] = {(names[m["name"]], m["mountPath"]) for m in mounts}
    return mounted


def run_config_of(cluster: FakeCluster) -> dict[str, Any]:
    """The RunConfig as an object."""
    import json

    return dict(json.loads(run_config(cluster)))


@pytest.mark.slow
def test_the_operator_may_die_at_any_write_of_a_lifecycle_that_began_with_a_wait() -> None:
    def begin() -> FakeCluster:
        return following(unfinished())

    def whole(cluster: FakeCluster) -> None:
        for _ in range(3):
            try:
                cluster.converge()
            except Crash:
                continue
        cluster.add(complete())
        live(cluster)

    left_alone = begin()
    whole(left_alone)
    for crash_at in range(1, left_alone.writes + 1):
        cluster = begin()
        cluster.crash_at = crash_at
        whole(cluster)
        assert cluster.jobs() == LIFECYCLE, f"crash at write {crash_at}"
        assert cluster.status["phase"] == "Succeeded" and len(set(cluster.created)) == len(cluster.created)
        assert run_config(cluster) == run_config(left_alone)
        assert owners(cluster) == {"job-uid"}, f"crash at write {crash_at}"


@pytest.mark.slow
def test_the_operator_may_die_at_any_write_of_an_edit_that_reads_another_model() -> None:
    def begin() -> FakeCluster:
        cluster = following(complete("Model"))
        cluster.converge()
        cluster.complete(make.prepared())
        data = cluster.objects.pop(OUTPUT)  # keeps training from its start
        cluster.converge()
        cluster.add(data)
        cluster.pods.clear()
        return cluster.edit(model={"claim": {"name": "base-models", "path": "tiny"}})

    left_alone = begin()
    before = left_alone.writes
    live(left_alone)
    for crash_at in range(before + 1, left_alone.writes + 1):
        cluster = begin()
        cluster.crash_at = crash_at
        live(cluster)
        assert cluster.jobs() == ["prepare-1", "prepare-2", "train-1", "finish-1"], f"crash at write {crash_at}"
        assert owners(cluster) == {"job-uid"} and "models" not in cluster.status
        assert ref_of(make.artifact_claim()) in cluster.objects


def test_jobs_that_read_each_others_models_in_rounds_are_each_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 7
    cluster = finetunejob_cluster(model={"jobRef": {"name": f"policy-{rounds}"}})
    for n in range(1, rounds + 1):
        before: dict[str, Any] = {"model": {"jobRef": {"name": f"policy-{n - 1}"}}}
        judge = {"model": {"jobRef": {"name": f"judge-{n}"}}}
        cluster.add(make.finetunejob(f"judge-{n}", f"judge-{n}-uid", objective="Reward", **before))
        cluster.add(make.finetunejob(f"policy-{n}", f"policy-{n}-uid", objective="RLOO", reward=judge, **before))
    cluster.add(make.finetunejob("policy-0", "policy-0-uid"))
    subject, visits = cluster.subject(), []
    observed = cluster.observe(subject)
    real = upstream._waits_for
    monkeypatch.setattr(upstream, "_waits_for", lambda job: visits.append(job) or real(job))
    FINETUNEJOB.reconcile(subject, observed, cluster.now)
    names = [job["metadata"]["name"] for job in visits]
    assert len(set(names)) == 2 * rounds + 1
    assert len(names) <= 3 * len(set(names)), "a fixed number of times, not once for each way that leads there"
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "WaitingForJob")


def chain(last: int, end: str) -> FakeCluster:
    """A job that waits for one that waits for another, and so on, `last` of them, and the last for `end`."""
    cluster = finetunejob_cluster(model={"jobRef": {"name": "job-1"}})
    for n in range(1, last + 1):
        follows = f"job-{n + 1}" if n < last else end
        cluster.add(make.finetunejob(f"job-{n}", f"{n}-uid", model={"jobRef": {"name": follows}}))
    return cluster


def test_a_circle_is_found_along_a_chain_of_jobs() -> None:
    cluster = chain(upstream.MAX_CHAIN, "support-bot")
    cluster.converge()
    assert cluster.condition("Stalled") == ("True", "JobCycle")


def test_the_jobs_along_a_chain_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = chain(2000, "nobody")
    names: list[str] = []
    for model in (FineTuneJobSpec, FineTuneJobStatus):
        real = model.from_dict
        monkeypatch.setattr(model, "from_dict", lambda value, real=real: names.append(real.__qualname__) or real(value))
    cluster.reconcile()
    assert 1 <= len(names) < 4 * upstream.MAX_CHAIN, "its own and the next one, a few times in each round of reads"


def test_a_chain_of_thousands_costs_a_few_reads_and_its_jobs_wait_for_the_next_one_only() -> None:
    cluster = chain(2000, "nobody")
    cluster.reconcile()
    assert cluster.gets < upstream.MAX_CHAIN + 20
    assert cluster.condition("Reconciling") == ("True", "WaitingForJob")
    assert "waits for more than 16 others" in cluster.message("Reconciling")


def test_of_a_short_chain_nothing_is_left_unchecked() -> None:
    cluster = chain(5, "nobody")
    cluster.reconcile()
    assert cluster.message("Reconciling") == "waiting for FineTuneJob 'job-1' (Pending)"


def test_while_a_job_waits_for_another_nothing_else_that_it_names_is_read() -> None:
    cluster, rows = following(unfinished()), Ref("v1", "ConfigMap", "reviews")
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "WaitingForJob")
    assert rows not in cluster.observe(cluster.subject()).objects, "no watch shows its keys, so that costs a request"
    cluster.add(complete())
    assert rows in cluster.observe(cluster.subject()).objects
