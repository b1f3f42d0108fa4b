"""A reward model in one pod, served: the example's life, and the endpoint's scores against the trainer's."""

import json
import re
from collections.abc import Iterator

import pytest

from dev import chat, install
from dev.kube import Kube, Object, is_true
from hone.contract.report import Report
from tests.e2e.support import EXAMPLES, apply_file, finished, namespace, read_volume, reviews

NAME = "review-reward"
TRAINING_SECONDS = 1200
SERVING_SECONDS = 900


@pytest.fixture(scope="module")
def ns(kube: Kube, hone: str, images: dict[str, str]) -> Iterator[Kube]:
    """A namespace with base model and data."""
    with namespace(kube, "hone-e2e-reward") as scoped:
        install.base_models(scoped, images["hone-base-models"])
        reviews(scoped)
        yield scoped


@pytest.fixture(scope="module")
def job(ns: Kube) -> Object:
    """The example's job, once it has ended."""
    apply_file(ns, EXAMPLES / "review-reward.yaml")
    return finished(ns, NAME, TRAINING_SECONDS)


def test_it_beats_a_coin_outside_the_interval(job: Object) -> None:
    status = job["status"]
    assert status["phase"] == "Succeeded", status.get("attempts")
    assert status["dataset"]["format"] == "Preference"
    assert (status["artifact"]["kind"], status["artifact"]["api"]) == ("Model", "Reward")
    score = status["evaluation"]["scores"][0]
    assert (score["metric"], score["base"]["value"]) == ("pairAccuracy", 0.5)
    assert score["improvement"]["lower"] > 0


def test_the_endpoint_gives_the_trainers_bare_scores(ns: Kube, job: Object, images: dict[str, str]) -> None:
    text = read_volume(ns, job["status"]["artifact"]["claim"], "report.json", images["hone-base-models"])
    report = Report.model_validate_json(text)
    deployment = ns.wait(
        "modeldeployment", NAME, lambda obj: is_true(obj, "Available"), "Available=True", SERVING_SECONDS
    )
    assert deployment["status"]["api"] == "Reward"
    rows = [json.loads(line) for line in (EXAMPLES / "data/review-pairs.jsonl").read_text().splitlines()]
    with chat.endpoint(ns, deployment) as server:
        for sample in report.samples[:5]:
            (row,) = (row for row in rows if row["prompt"][0]["content"] in sample.prompt)
            reported = [float(figure) for figure in re.findall(r"-?\d+\.\d+", sample.tuned)]
            served = [chat.score(server, NAME, row["prompt"] + row[answer]) for answer in ("chosen", "rejected")]
            assert served == pytest.approx(reported, abs=2e-2), sample.prompt
            # No probability: what a sigmoid or a softmax over one output would make of it lies in 0..1.
            assert min(served) < 0 or max(served) > 1
