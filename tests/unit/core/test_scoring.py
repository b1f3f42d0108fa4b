"""The artifact counts once it is written; what cannot be scored is not lost, and is scored again after an edit."""

import json
from typing import Any

import pytest

from hone.contract.results import StepResult
from hone.core.names import SPEC_ANNOTATION
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster, finetunejob_cluster
from tests.unit.core.runs import finishing, results, training

OUT_OF_MEMORY = make.verdict("OutOfMemory", "CUDA out of memory", final=True, hint="Lower maxNewTokens.")


def exported() -> StepResult:
    """What the first container of finish leaves."""
    return StepResult(step="finish", artifact=make.finished().artifact)


def export(cluster: FakeCluster) -> None:
    """The first container of finish ends well, and the second one runs."""
    cluster.start(initContainerStatuses=[{"name": "export", "state": make.exited(0, exported())}])


def scoring(**spec: Any) -> FakeCluster:
    """A cluster in which the artifact is written, and is being scored."""
    cluster = finishing(**spec)
    export(cluster)
    cluster.converge()
    return cluster


def scored(**spec: Any) -> FakeCluster:
    """A cluster in which the job is complete."""
    cluster = scoring(**spec)
    cluster.complete(make.finished())
    cluster.converge()
    return cluster


def attempt_of(cluster: FakeCluster, kind: str = "containers") -> dict[str, Any]:
    """HONE_ATTEMPT of the newest Job, without what is only for the report."""
    attempt = whole_attempt_of(cluster, kind)
    assert attempt.pop("record")["attempts"]
    return attempt


def whole_attempt_of(cluster: FakeCluster, kind: str = "containers") -> dict[str, Any]:
    """HONE_ATTEMPT of the newest Job."""
    (container,) = cluster.job()["spec"]["template"]["spec"][kind]
    return dict(json.loads(next(each["value"] for each in container["env"] if each["name"] == "HONE_ATTEMPT")))


def test_the_report_gets_what_only_the_operator_knows() -> None:
    cluster = training(compute={"gpusPerNode": 2, "nodes": 3})
    cluster.start()
    cluster.later(60).fail(70, make.verdict("Crashed", "no space\x1b[2J left", hint="Make room."))
    cluster.converge()
    cluster.start()
    cluster.later(30).complete(make.trained())
    cluster.converge()
    record = whole_attempt_of(cluster)["record"]
    assert [(each["step"], each["number"], each["result"]) for each in record["attempts"]] == [
        ("prepare", 1, "Succeeded"),
        ("train", 1, "Failed"),
        ("train", 2, "Succeeded"),
    ]
    failed = record["attempts"][1]
    assert (failed["failureClass"], failed["hint"]) == ("Crashed", "Make room.")
    assert "\\u001b" in failed["message"], "what pods report is cleaned"
    assert record["gpus"] == 6
    assert record["gpuSeconds"] == cluster.status["usage"]["gpuSeconds"] >= 90 * 6
    assert record["retries"] == 1


def test_finish_exports_in_a_container_of_its_own_with_the_same_mounts_and_resources() -> None:
    cluster = finishing(compute={"gpusPerNode": 2})
    pod = cluster.job()["spec"]["template"]["spec"]
    (before,), (container,) = pod["initContainers"], pod["containers"]
    assert (before["name"], container["name"]) == ("export", "finish")
    assert before["command"] == container["command"]
    assert before["resources"] == container["resources"]
    paths = [sorted(mount["mountPath"] for mount in each["volumeMounts"]) for each in (before, container)]
    assert paths[0] == paths[1]
    assert attempt_of(cluster, "initContainers") == {"number": 1, "exportOnly": True}
    assert attempt_of(cluster) == {"number": 1}


@pytest.mark.parametrize(
    ("planned", "gpus"), [(None, 1), (4, 4), (99, 8)], ids=["of an older plan", "as planned", "more than a pod has"]
)
def test_finish_has_the_gpus_that_the_plan_says(planned: int | None, gpus: int) -> None:
    cluster = finetunejob_cluster(compute={"gpusPerNode": 8})
    cluster.converge()
    cluster.complete(make.prepared(scoring_gpus=planned))
    cluster.converge()
    cluster.complete(make.trained())
    cluster.converge()
    pod = cluster.job()["spec"]["template"]["spec"]
    limits = [each["resources"]["limits"]["nvidia.com/gpu"] for each in (*pod["initContainers"], *pod["containers"])]
    assert limits == [str(gpus), str(gpus)]
    cluster.start()
    cluster.later(60).complete(make.finished())
    cluster.converge()
    assert cluster.status["usage"]["gpuSeconds"] == 60 * 8 + 60 * gpus


def test_finish_has_no_gpu_on_the_cpu() -> None:
    limits = finishing().job()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert "nvidia.com/gpu" not in limits


def test_the_artifact_is_in_status_while_it_is_scored() -> None:
    cluster = scoring()
    assert cluster.status["artifact"]["digest"] == "sha256:a57e"
    assert cluster.status["phase"] == "Finishing"
    assert cluster.condition("Complete") == ("False", "InProgress")


def test_a_pod_that_exports_has_started_so_that_no_deadline_ends_it() -> None:
    cluster = finishing()
    running = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    cluster.start(state={"waiting": {"reason": "PodInitializing"}}, phase="Pending", initContainerStatuses=[running])
    cluster.later(7200).converge()
    assert results(cluster)[-1] == ("finish", 1, "Running")


def test_a_failed_export_fails_the_job_with_its_own_words() -> None:
    cluster = finishing()
    words = make.verdict("BadInput", "spec.workspace: the final checkpoint was changed")
    cluster.fail(64)
    (pod,) = cluster.pods_of(cluster.job()["metadata"]["name"])
    pod["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "PodInitializing"}}}]
    pod["status"]["initContainerStatuses"] = [{"name": "export", "state": make.exited(64, words)}]
    cluster.converge()
    assert cluster.condition("Failed") == ("True", "BadInput")
    assert "the final checkpoint was changed" in cluster.message("Failed")
    assert cluster.condition("Complete")[0] == "False"


@pytest.mark.parametrize(
    ("code", "result", "reason", "attempts"),
    [
        (65, OUT_OF_MEMORY, "", 1),
        (64, make.verdict("BadInput", "the reward function raised"), "", 1),
        (70, make.verdict("Crashed"), "", 4),
        (137, "", "OOMKilled", 4),
    ],
    ids=["GPU memory", "reward function", "crash", "killed with its container"],
)
def test_a_job_that_cannot_be_scored_is_complete_and_says_why(
    code: int, result: StepResult | str, reason: str, attempts: int
) -> None:
    cluster = scoring()
    for number in range(attempts):
        if number:
            export(cluster)
        cluster.fail(code, result, reason)
        cluster.later(60).converge()
    assert cluster.jobs()[-1] == f"finish-{attempts}"
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.condition("Failed")[0] == "False"
    assert cluster.condition("Complete") == ("True", "NotScored")
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert cluster.condition("Promotable") == ("True", "NoGate"), "it can be served"
    assert cluster.status["artifact"]["digest"] == "sha256:a57e"
    assert cluster.status["notScored"] in cluster.message("Ready")
    assert cluster.reasons()[-1] == "NotScored"
    assert "Succeeded" not in cluster.reasons()


def test_the_artifact_in_the_words_of_a_container_that_failed_counts_too() -> None:
    """An earlier attempt wrote it, and ended before anybody read that."""
    cluster = finishing()
    cluster.fail(65, OUT_OF_MEMORY.model_copy(update={"artifact": exported().artifact}))
    cluster.converge()
    assert cluster.condition("Complete") == ("True", "NotScored")


def test_an_edited_evaluation_is_scored_again_and_nothing_else_is_done() -> None:
    cluster = scoring()
    cluster.fail(65, OUT_OF_MEMORY)
    cluster.converge()
    completed = cluster.status["completionTime"]
    cluster.later(600).edit(evaluation={"maxNewTokens": 8}).converge()
    assert cluster.jobs() == ["prepare-1", "train-1", "finish-1", "finish-2"]
    assert attempt_of(cluster) == {"number": 2, "evaluation": {"maxNewTokens": 8}}
    assert cluster.status["phase"] == "Finishing"
    assert cluster.condition("Complete") == ("True", "NotScored"), "servers and other jobs still use it"
    assert cluster.condition("Finished") == ("False", "InProgress")
    assert cluster.condition("Reconciling")[0] == "True"
    assert "notScored" not in cluster.status
    cluster.complete(make.finished())
    cluster.converge()
    assert cluster.condition("Complete") == ("True", "Succeeded")
    assert cluster.condition("Finished") == ("True", "Succeeded")
    assert (cluster.status["score"], cluster.status["completionTime"]) == ("0.91", completed)
    assert cluster.reasons()[-1] == "ScoredAgain"
    writes = cluster.writes
    cluster.converge()
    assert cluster.writes == writes, "and it rests"
    cluster.edit(evaluation={}).converge()
    assert attempt_of(cluster) == {"number": 3, "evaluation": {}}, "the defaults again"


def test_the_scores_stay_until_there_are_new_ones() -> None:
    cluster = scored()
    cluster.edit(evaluation={"maxNewTokens": 4096}).converge()
    export(cluster)
    cluster.fail(65, OUT_OF_MEMORY)
    cluster.converge()
    assert cluster.condition("Complete") == ("True", "NotScored")
    assert cluster.status["score"] == "0.91"
    cluster.edit(evaluation={"maxNewTokens": 64}).converge()
    assert cluster.jobs()[-1] == "finish-3"


def test_a_failure_by_the_old_evaluation_does_not_count_against_the_new_one() -> None:
    cluster = scoring(retry={"limit": 0})
    cluster.fail(70, make.verdict("Crashed"))
    cluster.edit(evaluation={"maxNewTokens": 8}).converge()
    assert cluster.jobs()[-1] == "finish-2"
    assert "finish.Crashed" not in cluster.status["failures"]
    cluster.fail(70, make.verdict("Crashed"))
    cluster.converge()
    assert cluster.condition("Complete") == ("True", "NotScored")
    assert cluster.jobs()[-1] == "finish-2"


def test_an_edit_replaces_the_attempt_that_scores() -> None:
    cluster = scoring()
    cluster.edit(evaluation={"maxNewTokens": 8}).converge()
    assert results(cluster)[-1] == ("finish", 1, "Replaced")
    assert "scored by the new one" in cluster.events[-1].message
    cluster.drop_deleted_pods()
    cluster.converge()
    assert attempt_of(cluster)["evaluation"]["maxNewTokens"] == 8


def test_an_edit_during_training_waits_for_finish() -> None:
    cluster = training()
    cluster.edit(evaluation={"maxNewTokens": 8}).converge()
    assert results(cluster)[-1] == ("train", 1, "Running")
    cluster.complete(make.trained())
    cluster.converge()
    assert attempt_of(cluster) == {"number": 1, "evaluation": {"maxNewTokens": 8}}


def test_the_operator_may_die_at_any_write_of_another_scoring() -> None:
    def live(crash_at: int | None) -> FakeCluster:
        cluster = scored()
        cluster.edit(evaluation={"maxNewTokens": 8})
        cluster.crash_at = None if crash_at is None else cluster.writes + crash_at
        for _ in range(8):
            try:
                cluster.converge()
            except Crash:
                continue
            if cluster.jobs()[-1] == "finish-2" and cluster.condition("Finished")[0] == "False":
                cluster.complete(make.finished())
        return cluster

    before = scored().writes
    whole = live(None)
    assert whole.condition("Finished") == ("True", "Succeeded")
    for number in range(1, whole.writes - before + 1):
        cluster = live(number)
        assert cluster.jobs() == ["prepare-1", "train-1", "finish-1", "finish-2"], f"crash at write {number}"
        assert cluster.condition("Finished") == ("True", "Succeeded")
        assert cluster.status["scoredSpec"] == cluster.job()["metadata"]["annotations"][SPEC_ANNOTATION]


def test_a_job_that_an_earlier_release_has_finished_rests_until_its_evaluation_is_edited() -> None:
    cluster = scored()
    del cluster.resource["status"]["scoredSpec"]
    cluster.edit(suspend=False).converge()
    assert cluster.jobs()[-1] == "finish-1"
    cluster.edit(evaluation={"maxNewTokens": 8}).converge()
    assert cluster.jobs()[-1] == "finish-2"


def test_a_refused_job_does_not_make_the_old_scores_those_of_the_new_spec() -> None:
    cluster = scored()
    before = cluster.status.get("scoredSpec")
    cluster.edit(evaluation={"maxNewTokens": 8})
    cluster.refuse = ("Job",)
    cluster.reconcile()
    assert cluster.condition("Stalled") == ("True", "Refused")
    assert cluster.status.get("scoredSpec") == before
    cluster.refuse = ()
    cluster.converge()
    assert cluster.jobs()[-1] == "finish-2"
    assert cluster.condition("Finished")[0] == "False"


def test_a_failure_counts_though_the_next_attempt_to_score_is_refused() -> None:
    cluster = scoring()
    cluster.fail(70, make.verdict("Crashed"))
    cluster.refuse = ("Job",)
    for _ in range(2):
        cluster.reconcile()
    assert cluster.status["failures"] == {"finish.Crashed": 1}
