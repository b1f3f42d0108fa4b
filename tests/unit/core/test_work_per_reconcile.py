"""How often a reconcile parses the spec and renders the RunConfig."""

from collections import Counter
from typing import Any

import pytest

from hone.core.finetunejob import run as run_module
from hone.core.finetunejob.resources import runconfig
from hone.core.plan import Plan
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the spec was parsed and the RunConfig rendered."""
    counter: Counter[str] = Counter()
    render, parse = runconfig.run_config, run_module.FineTuneJobSpec.from_dict

    class Counted:
        """Counts the parses of a spec."""

        @staticmethod
        def from_dict(value: dict[str, Any]) -> Any:
            counter["parsed"] += 1
            return parse(value)

    def counted(run: run_module.Run) -> Any:
        counter["rendered"] += 1
        return render(run)

    monkeypatch.setattr(runconfig, "run_config", counted)
    monkeypatch.setattr(run_module, "FineTuneJobSpec", Counted)
    return counter


def reconciles(cluster: FakeCluster, counts: Counter[str]) -> None:
    """Reconcile until nothing changes, and check each reconcile."""
    plan = Plan(requeue_after=0)
    while plan.create or plan.status or plan.requeue_after == 0:
        counts.clear()
        plan = cluster.reconcile()
        assert counts["parsed"] == 1
        assert counts["rendered"] <= 1


def test_each_reconcile_of_a_lifecycle_parses_once_and_renders_at_most_once(counts: Counter[str]) -> None:
    cluster = finetunejob_cluster(compute={"gpusPerNode": 0, "nodes": 2}, dataset=make.finetunejob()["spec"]["dataset"])
    for result in (make.prepared(), make.trained(), make.finished()):
        reconciles(cluster, counts)
        cluster.start()
        reconciles(cluster, counts)
        cluster.complete(result)
    reconciles(cluster, counts)
    assert cluster.status["phase"] == "Succeeded"


def test_while_an_attempt_runs_nothing_is_rendered(counts: Counter[str]) -> None:
    cluster = finetunejob_cluster()
    reconciles(cluster, counts)
    cluster.start()
    reconciles(cluster, counts)
    counts.clear()
    cluster.reconcile()
    assert counts["rendered"] == 0
