"""The table of steps, and what follows from it alone."""

from dataclasses import replace
from typing import Any

import pytest

from hone.contract.results import StepResult
from hone.core.finetunejob import steps
from hone.core.finetunejob.steps import STEPS
from hone.core.finetunejob.steps.step import has_succeeded
from tests.unit.core import make
from tests.unit.core.runs import finishing, results


def test_the_steps_run_in_the_order_of_the_table() -> None:
    assert list(STEPS) == ["prepare", "train", "finish", "publish"]
    assert steps.FIRST is STEPS["prepare"]


def test_only_the_step_that_reads_the_originals_mounts_the_data() -> None:
    assert [step.name for step in STEPS.values() if step.reads_originals] == [steps.FIRST.name]


def test_a_step_more_is_one_row_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_result(run: Any, status: Any, reports: Any) -> bool:
        return bool(reports)

    fourth = replace(
        STEPS["finish"],
        name="check",
        module="hone_trainer.check",
        is_done=lambda run, status: has_succeeded(status, "check"),
        take_result=take_result,
    )
    monkeypatch.setitem(STEPS, "check", fourth)
    cluster = finishing()
    cluster.complete(make.finished())
    cluster.converge()
    assert cluster.jobs()[-1] == "check-1"
    assert cluster.job()["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "hone_trainer.check"
    cluster.complete(StepResult(step="check"))
    cluster.converge()
    assert results(cluster)[-1] == ("check", 1, "Succeeded")
    assert cluster.status["phase"] == "Succeeded"
