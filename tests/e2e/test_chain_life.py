"""Three jobs and a server, applied as one file: SFT, a reward model over it, and RLOO by that reward model.

Takes longer than the other lives together, so it is a soak test.
"""

from collections.abc import Iterator

import pytest

from dev import chat, install
from dev.kube import Kube, Object
from hone.contract.report import Report
from tests.e2e.support import (
    EXAMPLES,
    apply_file,
    assert_serves,
    children,
    finished,
    namespace,
    read_volume,
    reviews,
    until,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SFT, REWARD, LAST = "chain-sft", "chain-reward", "chain-rloo"
STEP_SECONDS = 1200
"""From the end of one job to the end of the next."""
SERVING_SECONDS = 900


@pytest.fixture(scope="module")
def ns(kube: Kube, hone: str, images: dict[str, str]) -> Iterator[Kube]:
    """A namespace with base model and data."""
    with namespace(kube, "hone-soak-chain") as scoped:
        install.base_models(scoped, images["hone-base-models"])
        reviews(scoped)
        yield scoped


@pytest.fixture(scope="module")
def waited(ns: Kube) -> dict[str, Object]:
    """The jobs that wait, right after all was applied: each with what it has made, which is to be nothing."""
    apply_file(ns, EXAMPLES / "review-chain.yaml")

    def waits(name: str) -> Object | None:
        job = ns.get("finetunejob", name) or {}
        reasons = [c["reason"] for c in (job.get("status") or {}).get("conditions", []) if c["type"] == "Reconciling"]
        return job if reasons == ["WaitingForJob"] else None

    waiting = {name: until(lambda name=name: waits(name), f"{name} waits", 60) for name in (REWARD, LAST)}
    return {name: {**job, "children": children(ns, job["metadata"]["uid"])} for name, job in waiting.items()}


@pytest.fixture(scope="module")
def jobs(ns: Kube, waited: dict[str, Object]) -> dict[str, Object]:
    """All three, once they have ended."""
    by_name = {}
    for name in (SFT, REWARD, LAST):
        by_name[name] = finished(ns, name, STEP_SECONDS)
        assert by_name[name]["status"]["phase"] == "Succeeded", by_name[name]["status"].get("attempts")
    return by_name


def test_what_waits_has_no_pods_and_says_what_it_waits_for(waited: dict[str, Object]) -> None:
    for job in waited.values():
        assert job["status"]["phase"] == "Pending" and job["children"] == {}
        (ready,) = (c for c in job["status"]["conditions"] if c["type"] == "Ready")
        assert ready["message"].startswith(f"waiting for FineTuneJob '{SFT}' (")


def test_each_read_what_the_one_before_it_made(jobs: dict[str, Object]) -> None:
    artifacts = {name: job["status"]["artifact"] for name, job in jobs.items()}
    assert [artifacts[name]["kind"] for name in (SFT, REWARD, LAST)] == ["Adapter", "Model", "Model"]
    read = jobs[LAST]["status"]["models"]
    assert {name: (model["job"], model["digest"]) for name, model in read.items()} == {
        "model": (SFT, artifacts[SFT]["digest"]),
        "rewardModel": (REWARD, artifacts[REWARD]["digest"]),
    }
    assert jobs[REWARD]["status"]["models"]["model"]["jobUid"] == jobs[SFT]["metadata"]["uid"]


def test_what_was_read_is_given_back(ns: Kube, jobs: dict[str, Object]) -> None:
    for name in (SFT, REWARD):
        claim = ns.get("persistentvolumeclaim", jobs[name]["status"]["artifact"]["claim"]) or {}
        assert [owner["name"] for owner in claim["metadata"]["ownerReferences"]] == [name]


def test_the_reward_model_is_better_than_a_coin(jobs: dict[str, Object]) -> None:
    score = jobs[REWARD]["status"]["evaluation"]["scores"][0]
    assert score["metric"] == "pairAccuracy" and score["improvement"]["lower"] > 0


def test_on_prompts_that_were_held_out_the_reward_is_above_the_sft_models(jobs: dict[str, Object]) -> None:
    score = jobs[LAST]["status"]["evaluation"]["scores"][0]
    assert score["metric"] == "reward" and score["samples"] >= 50
    assert score["improvement"]["lower"] > 0, score


def test_what_is_served_is_the_model_that_was_scored(ns: Kube, jobs: dict[str, Object], images: dict[str, str]) -> None:
    text = read_volume(ns, jobs[LAST]["status"]["artifact"]["claim"], "report.json", images["hone-base-models"])
    report = Report.model_validate_json(text)
    deployment = assert_serves(ns, LAST, report, 10, SERVING_SECONDS)
    assert deployment["status"]["api"] == "Chat"
    with chat.endpoint(ns, deployment) as server:
        assert chat.models(server) == [LAST], "a whole model, which needs no base model loaded with it"
