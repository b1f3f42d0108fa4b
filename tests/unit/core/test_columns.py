"""The STATUS column of `kubectl get -o wide`: why a resource is in its phase, of both kinds."""

import re
from typing import Any

import pytest

from hone.api import crds
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster

BY_TYPE = re.compile(r'\.status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.message')


def status_column(cluster: FakeCluster) -> str:
    """What the column shows of the resource."""
    plural = cluster.resource["kind"].lower() + "s"
    (version,) = crds.crds()[plural]["spec"]["versions"]
    (column,) = (each for each in version["additionalPrinterColumns"] if each["name"] == "Status")
    assert (column["type"], column["priority"]) == ("string", 1)
    kind = BY_TYPE.fullmatch(column["jsonPath"])
    assert kind
    return cluster.message(kind[1])


def job_without_its_model() -> FakeCluster:
    return FakeCluster(make.finetunejob())


def job_with_a_spec_that_cannot_work() -> FakeCluster:
    return FakeCluster(make.finetunejob(method={"type": "Nonsense"}))


def deployment_without_its_job() -> FakeCluster:
    return FakeCluster(make.modeldeployment())


def deployment_of_a_failed_job() -> FakeCluster:
    job = make.finetunejob("job")
    job["status"] = {"conditions": [make.condition("Failed", "True", "BadInput")]}
    return FakeCluster(make.modeldeployment()).add(job)


@pytest.mark.parametrize(
    ("build", "holds", "words"),
    [
        (job_without_its_model, "Reconciling", "base-models"),
        (job_with_a_spec_that_cannot_work, "Stalled", "method"),
        (deployment_without_its_job, "Reconciling", "job"),
        (deployment_of_a_failed_job, "Stalled", "fail"),
    ],
)
def test_it_shows_the_message_of_reconciling_or_stalled(build: Any, holds: str, words: str) -> None:
    cluster = build()
    cluster.converge()
    assert cluster.condition(holds)[0] == "True"
    assert words in cluster.message(holds)
    assert status_column(cluster) == cluster.message(holds)
