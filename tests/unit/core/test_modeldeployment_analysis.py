"""The analysis of a candidate: it gets requests only if its answers are as good as those of the stable revision."""

import copy
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from hone.contract.analysis import ANALYSIS_ENV, Analysis, AnalysisSummary, AnalysisVerdict, Performance
from hone.contract.exits import FailureClass
from hone.contract.results import StepResult
from hone.contract.verdict import Verdict
from hone.core.observed import Ref
from hone.core.prices import Prices
from tests.unit.core.canaries import CANARY, deployments, new_artifact, selector, through, trying
from tests.unit.core.fake_cluster import Crash, FakeCluster
from tests.unit.core.test_modeldeployment_lifecycle import DIGEST, OTHER, served

ROWS = {"dataset": {"configMap": {"name": "held-out", "key": "rows.jsonl"}}}
ANALYZED = {**CANARY, "analysis": ROWS}
STABLE_ONLY = {"hone.dev/uid": "mdep-uid", "hone.dev/step": "serve"}
WORSE = "accuracy 0.81 < 0.86: difference -0.05 [-0.08, -0.02] is below -0.01"


def result(verdict: AnalysisVerdict, message: str = WORSE) -> StepResult:
    """What the pod reports."""
    summary = AnalysisSummary(verdict=verdict, message=message, metric="accuracy", samples=200, stable=0.86)
    return StepResult(step="analyze", analysis=summary)


def analyzing(rollout: dict[str, Any] | None = None) -> FakeCluster:
    """A cluster whose candidate is ready, and being analyzed."""
    return through(trying(rollout or ANALYZED), "candidate")


def jobs(cluster: FakeCluster) -> list[str]:
    """The Jobs that there are."""
    return [ref.name for ref in cluster.objects if ref.kind == "Job"]


def end(cluster: FakeCluster, verdict: AnalysisVerdict, message: str = WORSE) -> FakeCluster:
    """The analysis ends so."""
    cluster.complete(result(verdict, message))
    cluster.converge()
    return cluster


SPEED = Performance(ttft_p50=0.1, ttft_p95=0.3, tokens_per_second=500, concurrency=4, requests=32)


def measured(rollout: dict[str, Any] | None = None, prices: Prices | None = None, **spec: Any) -> FakeCluster:
    """A cluster whose candidate passed and was measured, and is served."""
    cluster = trying(rollout or {**CANARY, "steps": [], "analysis": ROWS}, **spec)
    cluster.settings = replace(cluster.settings, prices=prices or Prices())
    through(cluster, "candidate")
    summary = AnalysisSummary(verdict=AnalysisVerdict.PASS, message="as good", performance=SPEED)
    cluster.complete(StepResult(step="analyze", analysis=summary))
    cluster.converge()
    return cluster


def test_performance_is_that_of_the_revision_that_is_served() -> None:
    cluster = measured()
    assert "performance" not in cluster.status
    assert cluster.status["analysis"]["result"]["performance"]["ttftP50"] == 0.1
    through(cluster, "stable")
    assert cluster.status["performance"] == {**SPEED.to_dict(), "revision": cluster.status["stable"]["revision"]}
    cluster.edit(rollout={"strategy": "Recreate"}).converge()
    assert cluster.status["performance"]["ttftP95"] == 0.3
    new_artifact(cluster, "sha256:" + "d" * 64, "job3-output", "job-uid-3")
    through(cluster, "stable")
    assert "performance" not in cluster.status


def test_performance_stays_while_the_next_candidate_is_analyzed() -> None:
    cluster = through(measured(), "stable")
    new_artifact(cluster, "sha256:" + "d" * 64, "job3-output", "job-uid-3")
    through(cluster, "candidate")
    stable = cluster.status["stable"]["revision"]
    assert cluster.status["analysis"]["revision"] != stable
    assert cluster.status["performance"]["revision"] == stable


PRICES = Prices("EUR", {"NVIDIA-H100": 3.6, "nvidia.com/gpu": 1.8})
COSTS: dict[str, tuple[Prices, dict[str, Any], float | None]] = {
    "by the product": (PRICES, {"pod": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100"}}}, 2.0),
    "by the resource": (PRICES, {}, 1.0),
    "of two GPUs": (PRICES, {"gpus": 2}, 2.0),
    "without a price": (Prices("EUR", {}), {}, None),
    "on the CPU": (PRICES, {"gpus": 0}, None),
}


@pytest.mark.parametrize("case", COSTS)
def test_a_million_tokens_cost_what_the_gpus_do_meanwhile(case: str) -> None:
    prices, spec, cost = COSTS[case]
    shown = through(measured(prices=prices, **{"gpus": 1, **spec}), "stable").status["performance"]
    expected = {} if cost is None else {"costPerMillionTokens": cost, "currency": "EUR"}
    assert {key: shown[key] for key in ("costPerMillionTokens", "currency") if key in shown} == expected


def test_a_candidate_is_analyzed_once_it_is_ready_and_gets_no_request_meanwhile() -> None:
    cluster = trying(ANALYZED)
    assert jobs(cluster) == []
    through(cluster, "candidate")
    assert len(jobs(cluster)) == 1
    assert selector(cluster) == STABLE_ONLY
    assert cluster.condition("Progressing") == ("True", "Analyzing")
    assert cluster.condition("Analyzed") == ("Unknown", "Analyzing")
    assert cluster.condition("Available")[0] == "True"


def test_its_pod_is_told_what_to_ask_and_gets_a_key_of_the_servers_and_nothing_else() -> None:
    cluster = analyzing({**CANARY, "analysis": {**ROWS, "tolerance": 0.01, "maxSamples": 50, "metric": "tokenF1"}})
    pod = cluster.job()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    analysis = Analysis.from_dict(json.loads({each["name"]: each["value"] for each in container["env"]}[ANALYSIS_ENV]))
    services = {obj["metadata"]["name"] for ref, obj in cluster.objects.items() if ref.kind == "Service"}
    hosts = {url.removeprefix("http://").partition(".")[0] for url in (analysis.stable, analysis.candidate)}
    assert hosts == services
    assert analysis.stable == cluster.status["url"]
    assert (analysis.tolerance, analysis.max_samples, analysis.metric) == (0.01, 50, "tokenF1")
    assert (analysis.model, analysis.api, analysis.rows) == ("bot", "Chat", "/mnt/rows/rows.jsonl")
    assert [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume] == [
        cluster.status["access"]["secretName"]
    ]
    assert {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume} == {"held-out"}
    assert (analysis.keys, analysis.stable_keys) == ("/mnt/keys", "/mnt/keys")
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("old", "new", "mounts"),
    [
        ({"apiKeySecretRef": {"name": "a"}}, {"apiKeySecretRef": {"name": "b"}}, {"a": "stable", "b": "candidate"}),
        ({"apiKeySecretRef": {"name": "a"}}, {"mode": "Open"}, {"a": "stable"}),
        ({"mode": "Open"}, {"apiKeySecretRef": {"name": "b"}}, {"b": "candidate"}),
    ],
)
def test_each_revision_is_asked_with_its_own_key(old: Any, new: Any, mounts: dict[str, str]) -> None:
    cluster = served(rollout=ANALYZED, replicas=1, access=old)
    cluster.edit(access=new).converge()
    through(cluster, "candidate")
    pod = cluster.job()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    analysis = Analysis.from_dict(json.loads({each["name"]: each["value"] for each in container["env"]}[ANALYSIS_ENV]))
    paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    secrets = {each["secret"]["secretName"]: paths[each["name"]] for each in pod["volumes"] if "secret" in each}
    read = {"stable": analysis.stable_keys, "candidate": analysis.keys}
    assert secrets == {name: read[role] for name, role in mounts.items()}
    assert {role for role, path in read.items() if path} == {*mounts.values()}


def test_its_pod_may_connect_to_the_servers() -> None:
    cluster = analyzing()
    policy = next(obj for ref, obj in cluster.objects.items() if ref.kind == "NetworkPolicy")
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", [])]
    assert {"podSelector": {"matchLabels": {"hone.dev/uid": "mdep-uid"}}} in peers


def test_a_candidate_that_passes_gets_its_share() -> None:
    cluster = end(analyzing(), AnalysisVerdict.PASS, "accuracy 0.87, of the old revision 0.86: [-0.01, +0.03]")
    assert cluster.condition("Progressing") == ("True", "CanaryStep")
    assert cluster.condition("Analyzed") == ("True", "Pass")
    assert cluster.status["candidate"]["weight"] == 50
    through(cluster.later(60), "stable", "stable")
    assert cluster.status["stable"]["digest"] == OTHER
    assert cluster.status["analysis"]["result"]["verdict"] == "Pass"


def test_a_candidate_that_fails_is_removed_and_remembered_and_ready_stays_true() -> None:
    cluster = end(analyzing(), AnalysisVerdict.FAIL)
    assert set(deployments(cluster)) == {"stable"}
    assert cluster.condition("Ready")[0] == cluster.condition("Available")[0] == "True"
    assert cluster.condition("Progressing") == ("False", "CandidateRejected")
    assert f"{WORSE}; still serving aaaaaaaa" in cluster.message("Progressing")
    assert cluster.condition("Analyzed") == ("False", "Fail")
    (rejected,) = cluster.status["rejected"]
    assert rejected["reason"] == "AnalysisFailed"
    assert cluster.status["stable"]["digest"] == DIGEST
    assert cluster.reasons().count("CandidateRejected") == 1
    assert selector(cluster) == STABLE_ONLY
    before = cluster.writes
    cluster.later(100_000).converge()
    assert cluster.writes == before


def test_an_inconclusive_analysis_pauses_and_never_promotes() -> None:
    cluster = end(analyzing(), AnalysisVerdict.INCONCLUSIVE, "the prompts are too few to tell")
    cluster.later(1_000_000).converge()
    assert cluster.condition("Progressing") == ("Unknown", "Inconclusive")
    assert cluster.condition("Analyzed") == ("Unknown", "Inconclusive")
    assert set(deployments(cluster)) == {"stable", "candidate"}
    assert selector(cluster) == STABLE_ONLY
    assert "rejected" not in cluster.status


@pytest.mark.parametrize("edit", [{"retry": "more"}, {"analysis": {**ROWS, "maxSamples": 1000}}])
def test_another_analysis_or_retry_asks_again(edit: dict[str, Any]) -> None:
    cluster = end(analyzing(), AnalysisVerdict.INCONCLUSIVE)
    before = jobs(cluster)
    cluster.edit(rollout={**ANALYZED, **edit}).converge()
    assert len(set(jobs(cluster)) - set(before)) == 1
    end(cluster, AnalysisVerdict.PASS)
    assert cluster.status["candidate"]["weight"] == 50


@pytest.mark.parametrize("rollout", [ANALYZED, {**CANARY, "paused": True}])
def test_without_servers_a_candidate_waits_for_them_and_is_not_served_untried(rollout: dict[str, Any]) -> None:
    cluster = trying(rollout, replicas=0)
    cluster.later(1000).converge()
    assert cluster.condition("Progressing") == ("Unknown", "NoServers")
    assert {role: live["spec"]["replicas"] for role, live in deployments(cluster).items()} == {
        "stable": 0,
        "candidate": 0,
    }
    assert cluster.status["stable"]["digest"] == DIGEST
    cluster.edit(replicas=1).converge()
    through(cluster, "stable", "candidate")
    assert cluster.condition("Progressing")[1] in ("Analyzing", "Paused")


def test_without_the_analysis_an_inconclusive_candidate_gets_its_share() -> None:
    cluster = end(analyzing(), AnalysisVerdict.INCONCLUSIVE)
    cluster.edit(rollout=CANARY).converge()
    assert cluster.condition("Progressing") == ("True", "CanaryStep")


def test_a_third_revision_ends_the_analysis_of_the_second() -> None:
    cluster = analyzing()
    before = jobs(cluster)
    new_artifact(cluster, "sha256:" + "c" * 64, "job3-output", "job-uid-3")
    assert jobs(cluster) == []
    through(cluster, "candidate")
    assert jobs(cluster) and jobs(cluster) != before
    end(cluster, AnalysisVerdict.PASS)
    assert cluster.status["candidate"]["weight"] == 50


def test_a_job_that_was_deleted_is_created_again() -> None:
    cluster = analyzing()
    (name,) = jobs(cluster)
    del cluster.objects[Ref("batch/v1", "Job", name)]
    cluster.converge()
    assert jobs(cluster) == [name]


def test_a_result_is_kept_when_its_job_is_gone() -> None:
    cluster = end(analyzing(), AnalysisVerdict.INCONCLUSIVE)
    for name in jobs(cluster):
        del cluster.objects[Ref("batch/v1", "Job", name)]
    cluster.pods.clear()
    cluster.converge()
    assert jobs(cluster) == []
    assert cluster.condition("Progressing") == ("Unknown", "Inconclusive")


def test_a_lost_status_lets_no_candidate_pass_without_an_analysis() -> None:
    cluster = analyzing()
    (name,) = jobs(cluster)
    del cluster.resource["status"]
    cluster.converge()
    assert jobs(cluster) == [name]
    assert cluster.status["candidate"]["weight"] == 0
    assert selector(cluster) == STABLE_ONLY
    end(cluster, AnalysisVerdict.FAIL)
    assert set(deployments(cluster)) == {"stable"}


def test_a_result_that_is_none_pauses_with_its_words() -> None:
    cluster = analyzing()
    verdict = Verdict(
        failure_class=FailureClass.BAD_INPUT, message="line 3 is not JSON", hint="Correct it.", exit_code=64
    )
    cluster.fail(64, StepResult(step="analyze", verdict=verdict))
    cluster.converge()
    assert cluster.condition("Progressing") == ("Unknown", "BadInput")
    assert "line 3 is not JSON Correct it." in cluster.message("Progressing")
    assert "rejected" not in cluster.status


@pytest.mark.parametrize(
    "message", ["", "{}", "not JSON", '{"version": 1, "step": "analyze", "analysis": {"verdict": "Fine"}}']
)
def test_words_of_the_pod_that_are_no_result_promote_nothing(message: str) -> None:
    cluster = analyzing()
    cluster.fail(1, message)
    cluster.converge()
    assert selector(cluster) == STABLE_ONLY
    assert cluster.condition("Progressing") == ("True", "AnalysisFailed")


def test_a_pod_that_claims_another_step_or_has_no_label_of_the_job_is_not_believed() -> None:
    cluster = analyzing()
    cluster.complete(result(AnalysisVerdict.PASS))
    for pod in cluster.pods.values():
        pod["metadata"]["ownerReferences"] = []
    cluster.converge()
    assert selector(cluster) == STABLE_ONLY


def test_an_edit_that_is_undone_ends_the_analysis() -> None:
    cluster = served(rollout=ANALYZED, replicas=1)
    before = copy.deepcopy(cluster.resource["spec"])
    cluster.edit(runtime={"args": ["--seed=1"]}).converge()
    through(cluster, "candidate")
    assert len(jobs(cluster)) == 1
    cluster.resource["spec"] = before
    cluster.edit().converge()
    assert jobs(cluster) == []
    assert "analysis" not in cluster.status
    assert set(deployments(cluster)) == {"stable"}


@pytest.mark.parametrize("verdict", [AnalysisVerdict.PASS, AnalysisVerdict.FAIL])
@pytest.mark.parametrize("write", range(1, 9))
def test_wherever_the_operator_dies_the_verdict_is_followed(verdict: AnalysisVerdict, write: int) -> None:
    cluster = trying(ANALYZED)
    for happens in (lambda: through(cluster, "candidate"), lambda: end(cluster, verdict)):
        cluster.crash_at = cluster.writes + write
        with suppress(Crash):
            happens()
        cluster.crash_at = None
        through(cluster, "candidate") if "candidate" in deployments(cluster) and not jobs(cluster) else None
        cluster.converge()
    is_tried = verdict == AnalysisVerdict.PASS
    assert ("candidate" in deployments(cluster)) == is_tried
    assert len(cluster.status.get("rejected", [])) == (0 if is_tried else 1)
    assert len([ref for ref in cluster.created if ref.kind == "Job"]) == 1


def test_the_words_are_kept_short_and_on_one_line() -> None:
    cluster = end(analyzing(), AnalysisVerdict.FAIL, "worse\n\x1b[31m" + "x" * 480)
    assert "\n" not in cluster.message("Progressing") and "\x1b" not in cluster.message("Progressing")
