"""Classification in one pod, served: the example's life, and the endpoint's probabilities against the trainer's."""

from collections.abc import Iterator

import pytest

from dev import chat, install
from dev.kube import Kube, Object, is_true
from hone.contract.report import Report
from tests.e2e.support import EXAMPLES, apply_file, finished, namespace, read_volume, reviews, run_on_volume

NAME = "sentiment-classes"
TRAINING_SECONDS = 1200
SERVING_SECONDS = 900
LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def ns(kube: Kube, hone: str, images: dict[str, str]) -> Iterator[Kube]:
    """A namespace with base model and data."""
    with namespace(kube, "hone-e2e-classes") as scoped:
        install.base_models(scoped, images["hone-base-models"])
        reviews(scoped)
        yield scoped


@pytest.fixture(scope="module")
def job(ns: Kube) -> Object:
    """The example's job, once it has ended."""
    apply_file(ns, EXAMPLES / "sentiment-classification.yaml")
    return finished(ns, NAME, TRAINING_SECONDS)


@pytest.fixture(scope="module")
def report(ns: Kube, job: Object, images: dict[str, str]) -> Report:
    """The report next to the artifact, read from its volume."""
    text = read_volume(ns, job["status"]["artifact"]["claim"], "report.json", images["hone-base-models"])
    return Report.model_validate_json(text)


@pytest.fixture(scope="module")
def deployment(ns: Kube, job: Object) -> Object:
    """The deployment, once it answers."""
    return ns.wait("modeldeployment", NAME, lambda obj: is_true(obj, "Available"), "Available=True", SERVING_SECONDS)


def test_it_succeeds_and_tells_its_classes(job: Object) -> None:
    status = job["status"]
    assert status["phase"] == "Succeeded", status.get("attempts")
    rows = {entry["label"]: entry["rows"] for entry in status["dataset"]["classes"]}
    assert sorted(rows) == LABELS
    assert min(rows.values()) > 250
    assert status["dataset"]["format"] == "TextLabel"
    assert (status["artifact"]["kind"], status["artifact"]["api"]) == ("Model", "Classify")
    assert "merged into a whole model" in status["plan"]["reasons"]["method"]


def test_it_beats_the_most_frequent_class_outside_the_interval(job: Object) -> None:
    score = job["status"]["evaluation"]["scores"][0]
    assert score["metric"] == "macroF1"
    assert score["samples"] >= 50
    assert score["improvement"]["lower"] > 0
    assert score["tuned"]["lower"] > score["base"]["upper"]


def test_the_deployment_tells_its_api(deployment: Object) -> None:
    assert deployment["status"]["api"] == "Classify"


def test_the_endpoints_probabilities_are_the_trainers(ns: Kube, deployment: Object, report: Report) -> None:
    assert len(report.samples) == 20
    with chat.endpoint(ns, deployment) as server:
        assert chat.models(server) == [NAME]
        answers = chat.classify(server, NAME, [sample.prompt for sample in report.samples])
    for sample, answer in zip(report.samples, answers, strict=True):
        assert list(sample.probabilities or {}) == LABELS
        assert answer["probs"] == pytest.approx(list((sample.probabilities or {}).values()), abs=1e-2), sample.prompt
        assert answer["label"] == sample.tuned


def test_a_changed_artifact_is_not_served_again(
    ns: Kube, job: Object, deployment: Object, images: dict[str, str]
) -> None:
    """Last of all: one byte of the weights is changed on the volume, and the server's pod is replaced."""
    where = "of=/mnt/volume/artifact/model.safetensors"
    change = f"printf x | dd {where} bs=1 seek=100000 conv=notrunc"
    run_on_volume(ns, job["status"]["artifact"]["claim"], ["sh", "-c", change], images["hone-base-models"])
    ns.run("delete", "pod", f"--selector=hone.dev/uid={deployment['metadata']['uid']}", "--wait=false")
    stalled = ns.wait("modeldeployment", NAME, lambda obj: is_true(obj, "Stalled"), "Stalled=True", SERVING_SECONDS)
    condition = next(entry for entry in stalled["status"]["conditions"] if entry["type"] == "Stalled")
    assert condition["reason"] == "ArtifactChanged"
    assert "'model.safetensors' has other content" in condition["message"]
