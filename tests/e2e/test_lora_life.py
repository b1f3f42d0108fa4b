"""LoRA of a published chat model in one pod, served: the life that `make demo` shows, and what it leaves behind."""

import json
import re
import time

import pytest

from dev import chat, demo, install
from dev.kube import Kube, KubeError, Object, is_true
from hone.contract.report import Report
from tests import monitoring
from tests.e2e.conftest import run_demo
from tests.e2e.prometheus import OPERATOR, WORKLOADS, Prometheus, lint, scrape
from tests.e2e.support import MANAGED, children, read_volume, until

NAME = demo.EXAMPLE
UNSEEN = {
    "hone_train_reward",
    "hone_finetunejob_reward",
    "hone_train_gpu_memory_peak_bytes",
    "hone_modeldeployment_condition",
}
"""What this life has none of: rewards, GPUs, and a server that waited until Prometheus looked."""
SAMPLES = 10
"""Answers of the report that are compared with the server's."""


@pytest.fixture(scope="module")
def ns(kube: Kube, demonstration: str) -> Kube:
    """The demo's namespace after the demo."""
    return kube.within(demo.NAMESPACE)


@pytest.fixture(scope="module")
def job(ns: Kube) -> Object:
    """The FineTuneJob."""
    resource = ns.get("finetunejob", NAME)
    assert resource is not None
    return resource


@pytest.fixture(scope="module")
def report(ns: Kube, job: Object, images: dict[str, str]) -> Report:
    """The report next to the artifact, read from its volume."""
    text = read_volume(ns, job["status"]["artifact"]["claim"], "report.json", images[demo.MODEL_IMAGE])
    return Report.model_validate_json(text)


def test_the_demo_ends_with_both_models_answers(demonstration: str) -> None:
    pattern = r"^    base model +(.*)\n    tuned model +(.*)\n    right +(.*)$"
    answers = re.findall(pattern, demonstration, re.MULTILINE)
    assert len(answers) == 3
    for base, tuned, right in answers:
        assert base
        assert json.loads(tuned).keys() == json.loads(right).keys(), "the tuned model has learned the form"


def test_the_demo_showed_every_phase_and_training_moving(demonstration: str) -> None:
    for phase in ("Preparing", "Training", "Finishing", "Succeeded"):
        assert re.search(rf"^ +\d+ s  {phase}\b", demonstration, re.MULTILINE), phase
    moves = re.findall(r"Training \[[#.]+\] +(\d+) %  step (\d+)/(\d+)  loss ([\d.e-]+)", demonstration)
    assert len({percent for percent, *_ in moves}) >= 3
    assert len({loss for *_, loss in moves}) >= 3
    assert re.search(r"Training .* left$", demonstration, re.MULTILINE), "no time left was shown"


def test_the_demo_gave_the_plans_reasons(demonstration: str) -> None:
    assert re.search(r"^  totalSteps +\d+  \S+", demonstration, re.MULTILINE)


def test_the_tuned_model_is_better_than_the_base_outside_the_interval(job: Object) -> None:
    scores = {score["metric"]: score for score in job["status"]["evaluation"]["scores"]}
    score = scores["exactMatch"]
    assert score["samples"] >= 30
    assert score["improvement"]["lower"] > 0
    assert score["tuned"]["lower"] > score["base"]["upper"]


def test_the_conditions_are_those_of_a_good_end(job: Object) -> None:
    status = {entry["type"]: entry["status"] for entry in job["status"]["conditions"]}
    expected = {"Complete": "True", "Finished": "True", "Ready": "True", "Promotable": "True"}
    assert expected.items() <= status.items()
    assert {"Failed": "False", "Stalled": "False", "Reconciling": "False"}.items() <= status.items()


def test_kubectl_wait_returns_at_once(ns: Kube) -> None:
    ns.run("wait", "--for=condition=Finished", f"finetunejob/{NAME}", "--timeout=5s")
    ns.run("wait", "--for=condition=Available", f"modeldeployment/{NAME}", "--timeout=5s")


def test_the_columns_of_kubectl_get_are_filled(ns: Kube) -> None:
    header, row = ns.run("get", "ftj", NAME).splitlines()
    assert header.split() == ["NAME", "PHASE", "PROGRESS%", "LOSS", "ETA", "SCORE", "Δ", "GATE", "AGE"]
    assert re.match(rf"{NAME} +Succeeded +100 +[\d.e-]+ .* [\d.]+ +\+[\d.]+ \[[\d.]+, [\d.]+\] +\w+$", row), row


def test_the_report_is_what_the_status_says(job: Object, report: Report) -> None:
    assert report.evaluation.to_dict() == job["status"]["evaluation"]
    assert report.artifact.digest == job["status"]["artifact"]["digest"]
    assert report.job.uid == job["metadata"]["uid"]


def test_the_endpoint_gives_the_trainers_own_answers(ns: Kube, report: Report) -> None:
    deployment = ns.get("modeldeployment", NAME) or {}
    samples = report.samples[:SAMPLES]
    assert len(samples) == SAMPLES
    with chat.endpoint(ns, deployment) as server:
        assert set(chat.models(server)) == {NAME, f"{NAME}-base"}
        served = [chat.complete(server, NAME, sample.prompt, report.max_new_tokens).strip() for sample in samples]
    # The server computes in bfloat16, the trainer in float32, so that a word in doubt may come out differently. The
    # small base model's answers are compared exactly, by the soak tests.
    equal = [answer == sample.tuned.strip() for answer, sample in zip(served, samples, strict=True)]
    assert sum(equal) >= 0.8 * SAMPLES, list(zip(served, (sample.tuned for sample in samples), strict=True))


def test_no_pod_of_ours_holds_a_token_or_leaves_restricted_security(ns: Kube) -> None:
    labels = (ns.get("namespace", demo.NAMESPACE) or {})["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = ns.list("pod", MANAGED)
    assert {pod["metadata"]["labels"]["hone.dev/step"] for pod in pods} >= {"serve"}
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "kube-api-access" not in json.dumps(pod["spec"])


def test_an_edit_of_a_started_run_is_refused_by_field(ns: Kube) -> None:
    patch = json.dumps({"spec": {"hyperparameters": {"epochs": 9}}})
    with pytest.raises(KubeError, match="cannot change after training has started") as refused:
        ns.run("patch", "finetunejob", NAME, "--type=merge", "--patch", patch)
    assert "spec.hyperparameters" in str(refused.value)


def test_explain_explains(ns: Kube) -> None:
    text = ns.run("explain", "ftj.spec.method")
    assert "LoRA trains small matrices added to the frozen weights" in " ".join(text.split())


def test_prometheus_has_scraped_operator_trainer_and_server(demonstration: str, prometheus: Prometheus) -> None:
    for expression in (
        f'controller_runtime_reconcile_total{{job="{OPERATOR}",controller="finetunejob",result="success"}}',
        f'last_over_time(hone_finetunejob_step{{job="{OPERATOR}",namespace="{demo.NAMESPACE}"}}[1h])',
        f'max_over_time(hone_train_step{{job="{WORKLOADS}",namespace="{demo.NAMESPACE}",rank="0"}}[1h]) > 0',
        f'up{{namespace="{demo.NAMESPACE}",hone_dev_deployment="{NAME}",hone_dev_step="serve"}} == 1',
    ):
        until(lambda expression=expression: prometheus.query(expression), expression, 30)


def test_prometheus_has_what_alerts_and_dashboards_show(demonstration: str, prometheus: Prometheus) -> None:
    for expression in monitoring.expressions():
        prometheus.query(expression)  # An HTTP error where it is none.
    for name in sorted(monitoring.metrics() - UNSEEN):
        series = f'last_over_time({{__name__="{name}"}}[1h])'
        until(lambda series=series: prometheus.query(series), f"Prometheus has seen {name}", 30)


def test_promtool_finds_no_fault_in_the_operators_metrics(kube: Kube, demonstration: str) -> None:
    (pod,) = kube.within(install.SYSTEM_NAMESPACE).list("pod", "app.kubernetes.io/component=operator")
    text = scrape(f"{pod['status']['podIP']}:8080")
    assert "hone_finetunejob_" in text
    assert lint(text) == ""


def test_the_demo_run_again_goes_on_from_what_is_there(ns: Kube, job: Object) -> None:
    began = time.monotonic()
    text = run_demo()
    assert "Done in" in text
    assert time.monotonic() - began < 180
    again = ns.get("finetunejob", NAME)
    assert again is not None
    assert again["metadata"]["uid"] == job["metadata"]["uid"]
    assert again["status"]["attempts"] == job["status"]["attempts"]


# From here on the life ends: these run last, in this order.


def test_deleting_the_job_leaves_the_served_artifact_and_nothing_else(ns: Kube, job: Object) -> None:
    uid, claim = job["metadata"]["uid"], job["status"]["artifact"]["claim"]
    ns.run("delete", "finetunejob", NAME)
    until(lambda: children(ns, uid) == {"persistentvolumeclaim": [claim]}, "only the artifact is left", 120)
    deployment = ns.get("modeldeployment", NAME)
    assert deployment is not None
    assert is_true(deployment, "Available")
    with chat.endpoint(ns, deployment) as server:
        assert chat.ask(server, NAME, "Was it good?")


def test_a_job_made_again_under_its_name_starts_afresh(ns: Kube, job: Object) -> None:
    ns.run("apply", "--server-side", "-k", str(install.ROOT / "examples/tickets"))
    fresh = ns.wait(
        "finetunejob", NAME, lambda obj: bool((obj.get("status") or {}).get("attempts")), "its first attempt", 60
    )
    assert fresh["metadata"]["uid"] != job["metadata"]["uid"]
    assert [attempt["step"] for attempt in fresh["status"]["attempts"]] == ["prepare"]
    assert not {"startTime", "evaluation", "artifact"} & set(fresh["status"])
    ns.run("delete", "finetunejob", NAME)
    until(lambda: children(ns, fresh["metadata"]["uid"]) == {}, "nothing of the second job is left", 120)


def test_deleting_the_deployment_too_leaves_nothing(ns: Kube) -> None:
    ns.run("delete", "modeldeployment", NAME)
    until(lambda: [p for p in ns.list("pod") if p["metadata"]["labels"].get("hone.dev/step")] == [], "no pod", 180)
    kinds = ("job", "service", "deployment", "configmap", "persistentvolumeclaim")
    until(lambda: all(ns.list(kind, MANAGED) == [] for kind in kinds), "nothing of ours is left", 60)
