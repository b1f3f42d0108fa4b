"""A FineTuneJob brought to each of its steps, for the tables."""

from typing import Any

from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster


def preparing(**spec: Any) -> FakeCluster:
    """A cluster in which prepare is about to run."""
    cluster = finetunejob_cluster(**spec)
    cluster.converge()
    return cluster


def training(**spec: Any) -> FakeCluster:
    """A cluster in which all trainer pods run."""
    cluster = preparing(**spec)
    cluster.complete(make.prepared())
    cluster.converge()
    cluster.start()
    cluster.converge()
    return cluster


def finishing(**spec: Any) -> FakeCluster:
    """A cluster in which training has ended well."""
    cluster = training(**spec)
    cluster.complete(make.trained())
    cluster.converge()
    return cluster


def results(cluster: FakeCluster) -> list[tuple[str, int, str]]:
    """Step, number and result of each attempt."""
    return [(a["step"], a["number"], a["result"]) for a in cluster.status["attempts"]]
