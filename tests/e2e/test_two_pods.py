"""SFT and DPO in two pods each, by plain DDP: the same examples with another `compute.nodes`, and as good as in one."""

from collections.abc import Iterator

import pytest

from dev import install
from dev.kube import Kube, Object
from tests.e2e.support import EXAMPLES, apply_file, finished, namespace, reviews

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SECONDS = 1500


@pytest.fixture(scope="module")
def ns(kube: Kube, hone: str, images: dict[str, str]) -> Iterator[Kube]:
    """A namespace with base model and data."""
    with namespace(kube, "hone-soak-two-pods") as scoped:
        install.base_models(scoped, images["hone-base-models"])
        reviews(scoped)
        yield scoped


def in_two_pods(manifest: Object) -> None:
    """The same job in two pods on one machine."""
    spec = manifest["spec"]
    if manifest["kind"] == "FineTuneJob":
        spec["compute"] |= {"nodes": 2}
        spec["compute"]["resources"]["requests"]["cpu"] = "500m"
        spec["workspace"]["accessModes"] = ["ReadWriteOnce"]
    else:
        spec["replicas"] = 0  # what it is to serve is tested elsewhere


@pytest.mark.parametrize(
    ("example", "name", "metric"),
    [("sentiment-lora", "sentiment", "exactMatch"), ("review-dpo", "review-dpo", "preferenceAccuracy")],
    ids=["SFT", "DPO"],
)
def test_it_learns_in_two_pods_as_in_one(ns: Kube, example: str, name: str, metric: str) -> None:
    apply_file(ns, EXAMPLES / f"{example}.yaml", in_two_pods)
    status = finished(ns, name, SECONDS)["status"]
    assert status["phase"] == "Succeeded", status.get("attempts")
    assert (status["plan"]["worldSize"], status["plan"]["zeroStage"]) == (2, 0)
    assert [attempt["step"] for attempt in status["attempts"]] == ["prepare", "train", "finish"], "none failed"
    score = status["evaluation"]["scores"][0]
    assert score["metric"] == metric
    assert score["improvement"]["lower"] > 0, score
