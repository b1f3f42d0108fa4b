"""What cannot work is refused or reported by real pods with field and remedy, in status and in an event."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dev import install
from dev.kube import Kube, Object, condition, is_true
from tests.e2e.support import EXAMPLES, apply_file, children, finished, namespace, reviews, until

EXAMPLE = EXAMPLES / "sentiment-full-zero2.yaml"
ROW = {"messages": [{"role": "user", "content": "Good?"}, {"role": "assistant", "content": "positive"}]}
FILES = {
    "no-json": "this is no JSON\n" * 600,
    "no-column": json.dumps({"review": "Good?", "sentiment": "positive"}) + "\n",
    "rows.csv": 'question,answer\nGood?,positive\n"Bad?,negative\n',
    "scarce": "".join(
        json.dumps({"messages": [{**ROW["messages"][0], "content": f"Is number {n} good?"}, ROW["messages"][1]]}) + "\n"
        for n in range(40)
    ),
}


def data(key: str, **more: Any) -> dict[str, Any]:
    """A dataset that reads that key of the ConfigMap with bad data."""
    return {"dataset": {"train": {"configMap": {"name": "bad", "key": key}}, **more}}


# By the job's name: what its spec has instead of the example's, and the words that the refusal must have.
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown-model": (
        {"model": {"claim": {"name": "base-models", "path": "no-such-model"}}},
        ["spec.model.claim.path", "no-such-model"],
    ),
    "no-json": (data("no-json"), ["spec.dataset.train", "JSON"]),
    "missing-column": (data("no-column"), ["spec.dataset.train", "messages"]),
    "open-quotes": (
        data("rows.csv", columns={"prompt": "question", "completion": "answer"}),
        ["spec.dataset.train", "rows.csv: line 3"],
    ),
    "scarce-data": (data("scarce", onScarceData="Fail"), ["spec.dataset.minSamples", "500"]),
}
# What is reported, and tried again: somebody may fix it outside the job.
REPORTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no-image": ({"compute": {"image": "127.0.0.1:5005/hone/no-such-image:1", "gpusPerNode": 0}}, ["no-such-image"]),
    "no-node": (
        {"compute": {"gpusPerNode": 0, "pod": {"nodeSelector": {"hone.dev/no-such-label": "x"}}}},
        ["node affinity/selector"],
    ),
}


@pytest.fixture(scope="module")
def ns(kube: Kube, hone: str, images: dict[str, str]) -> Iterator[Kube]:
    """A namespace with base model, data and bad data, in which all these jobs run at once."""
    with namespace(kube, "hone-e2e-refusals") as scoped:
        install.base_models(scoped, images["hone-base-models"])
        reviews(scoped)
        scoped.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, "data": FILES})
        for name, (spec, _) in {**REFUSED, **REPORTED}.items():

            def edit(job: Object, name: str = name, spec: dict[str, Any] = spec) -> None:
                job["metadata"]["name"] = name
                job["spec"] |= {**spec, "prepare": {"resources": {"requests": {"cpu": "100m", "memory": "512Mi"}}}}

            apply_file(scoped, EXAMPLE, edit)
        yield scoped


def warnings(ns: Kube, name: str) -> list[Object]:
    """The warnings on a job."""
    events = ns.list("events.events.k8s.io")
    return [event for event in events if event["type"] == "Warning" and event["regarding"]["name"] == name]


def events(ns: Kube, name: str) -> str:
    """The texts of the warnings on a job."""
    return "\n".join(event["note"] for event in warnings(ns, name))


def warned(ns: Kube, name: str) -> set[str]:
    """The reasons of the warnings on a job."""
    return {event["reason"] for event in warnings(ns, name)}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_trains(ns: Kube, name: str) -> None:
    words = REFUSED[name][1]
    ns.run("wait", "--for=condition=Finished", f"finetunejob/{name}", "--timeout=600s", seconds=620)
    job = finished(ns, name, 5)
    assert is_true(job, "Failed")
    assert is_true(job, "Stalled")
    (attempt,) = job["status"]["attempts"]
    assert (attempt["step"], attempt["failure"]["class"], attempt["failure"]["exitCode"]) == ("prepare", "BadInput", 64)
    message = condition(job, "Failed")["message"]
    for word in words:
        assert word in message
        assert word in events(ns, name)
    assert attempt["failure"]["hint"]
    assert "startTime" not in job["status"]
    ns.run("delete", "finetunejob", name)
    until(lambda: children(ns, job["metadata"]["uid"]) == {}, "nothing is left", 120)


@pytest.mark.parametrize("name", REPORTED)
def test_reported_while_it_is_tried_again(ns: Kube, name: str) -> None:
    words = REPORTED[name][1]
    job = ns.wait(
        "finetunejob",
        name,
        lambda obj: all(word in json.dumps((obj.get("status") or {}).get("conditions", [])) for word in words),
        f"{words} in a condition",
        300,
    )
    assert not is_true(job, "Finished")
    # An event comes once for each reason, and the scheduler's first words may be about a claim that is not bound yet.
    reason = condition(job, "Reconciling")["reason"]
    until(lambda: reason in warned(ns, name), f"an event {reason}", 60)
    ns.run("delete", "finetunejob", name)
    until(lambda: children(ns, job["metadata"]["uid"]) == {}, "nothing is left", 120)
