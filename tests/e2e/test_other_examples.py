"""The examples that have no life of their own, applied at once as they stand: each ends, better than its base."""

from collections.abc import Iterator

import pytest

from dev import install
from dev.kube import Kube
from hone.contract.report import Report
from tests.e2e.support import EXAMPLES, apply_file, assert_serves, finished, namespace, read_volume, reviews

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

LIVES = ("review-chain", "review-reward", "sentiment-classification", "sentiment-full-zero2", "sentiment-lora")
"""Each of these has a test file."""
OTHERS = sorted({path.stem for path in EXAMPLES.glob("*.yaml")} - {*LIVES, "kustomization"})
QLORA = "sentiment-qlora"
SECONDS = 5400
"""Until the last of them has ended: they wait for the node's CPUs, too."""
SERVING_SECONDS = 900


@pytest.fixture(scope="module")
def ns(kube: Kube, hone: str, images: dict[str, str]) -> Iterator[Kube]:
    """A namespace with base model and data, and all these examples applied."""
    with namespace(kube, "hone-soak-examples") as scoped:
        install.base_models(scoped, images["hone-base-models"])
        reviews(scoped)
        for example in OTHERS:
            apply_file(scoped, EXAMPLES / f"{example}.yaml")
        yield scoped


@pytest.mark.parametrize("example", OTHERS)
def test_it_ends_better_than_its_base(ns: Kube, example: str) -> None:
    status = finished(ns, example, SECONDS)["status"]
    assert status["phase"] == "Succeeded", status.get("attempts")
    assert [attempt["step"] for attempt in status["attempts"]] == ["prepare", "train", "finish"], "none failed"
    score = status["evaluation"]["scores"][0]
    assert score["improvement"]["lower"] > 0, score


def test_the_student_learned_from_what_its_teacher_had_become(ns: Kube) -> None:
    teacher = finished(ns, "review-teacher", SECONDS)
    read = finished(ns, "review-distillation", SECONDS)["status"]["models"]["teacher"]
    assert (read["jobUid"], read["digest"]) == (teacher["metadata"]["uid"], teacher["status"]["artifact"]["digest"])


def test_an_adapter_trained_on_a_quantized_base_is_served_on_the_unquantized_one(
    ns: Kube, images: dict[str, str]
) -> None:
    artifact = finished(ns, QLORA, SECONDS)["status"]["artifact"]
    assert artifact["kind"] == "Adapter"
    report = Report.model_validate_json(read_volume(ns, artifact["claim"], "report.json", images["hone-base-models"]))
    assert_serves(ns, QLORA, report, 10, SERVING_SECONDS)
