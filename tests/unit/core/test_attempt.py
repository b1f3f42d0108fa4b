"""What an attempt is told: its number, its level of the memory fallback, its share of the rate."""

import json
from typing import Any

import pytest

from hone.contract.settings import Evaluation
from hone.core.finetunejob.policies.attempt import attempt
from hone.core.finetunejob.run import FINISH, PREPARE, TRAIN
from hone.core.finetunejob.steps import STEPS
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.runs import finishing, preparing, training


def configured(cluster: FakeCluster) -> str:
    """The newest Job's HONE_ATTEMPT, without what is only for the report."""
    env = {e["name"]: e.get("value") for e in cluster.job()["spec"]["template"]["spec"]["containers"][0]["env"]}
    attempt = {name: value for name, value in json.loads(env["HONE_ATTEMPT"]).items() if name != "record"}
    return json.dumps(attempt, separators=(",", ":"))


def test_each_attempt_is_told_its_number() -> None:
    cluster = training()
    cluster.fail(70)
    cluster.converge()
    assert configured(cluster) == '{"number":2}'


@pytest.mark.parametrize(
    ("case", "failures", "level", "factor"),
    [
        ("nothing failed", {}, 0, 1.0),
        ("a crash changes nothing", {"train.Crashed": 2, "train.Hung": 1}, 0, 1.0),
        ("host memory is not the GPU's", {"train.HostOutOfMemory": 2}, 0, 1.0),
        ("a level for each time out of memory", {"train.OutOfMemory": 3}, 3, 1.0),
        ("half the rate after a divergence", {"train.Diverged": 1}, 0, 0.5),
        ("both", {"train.OutOfMemory": 1, "train.Diverged": 1, "train.Preempted": 7}, 1, 0.5),
        ("other steps have no levels", {"finish.OutOfMemory": 2, "prepare.Diverged": 1}, 0, 1.0),
    ],
)
def test_what_training_is_told(case: str, failures: dict[str, int], level: int, factor: float) -> None:
    result = attempt(TRAIN, 4, failures)
    assert (result.number, result.memory_fallback_level, result.learning_rate_factor) == (4, level, factor), case


@pytest.mark.parametrize("step", [PREPARE, FINISH])
def test_only_training_has_a_level_and_a_rate(step: str) -> None:
    failures = {f"{each}.{cls}": 2 for each in STEPS for cls in ("OutOfMemory", "Diverged")}
    result = attempt(step, 2, failures)
    assert (result.memory_fallback_level, result.learning_rate_factor) == (0, 1.0)


@pytest.mark.parametrize("step", list(STEPS))
def test_only_finish_is_told_of_an_edited_evaluation(step: str) -> None:
    edited = Evaluation(max_new_tokens=8)
    assert attempt(step, 2, {}, edited).evaluation == (edited if step == FINISH else None)


def test_a_gang_goes_down_the_memory_fallback_by_one_level_an_attempt_and_keeps_the_rate_it_was_given() -> None:
    cluster = training(compute={"gpusPerNode": 1, "nodes": 2}, retry={"limit": 9})
    want = [
        (65, "OutOfMemory", '{"number":2,"memoryRung":1}'),
        (66, "Diverged", '{"number":3,"memoryRung":1,"learningRateFactor":0.5}'),
        (65, "OutOfMemory", '{"number":4,"memoryRung":2,"learningRateFactor":0.5}'),
        (70, "Crashed", '{"number":5,"memoryRung":2,"learningRateFactor":0.5}'),
    ]
    for code, cls, expected in want:
        cluster.fail(code, make.verdict(cls))
        cluster.converge()
        assert configured(cluster) == expected
        cluster.start()
        cluster.converge()


def test_the_gangs_level_is_known_where_only_the_jobs_words_are_left() -> None:
    cluster = training()
    cluster.fail(65)
    cluster.pods.clear()
    cluster.converge()
    assert configured(cluster) == '{"number":2,"memoryRung":1}'


@pytest.mark.parametrize("begun", [preparing, finishing])
def test_out_of_memory_in_another_step_is_told_to_nobody(begun: Any) -> None:
    cluster = begun()
    cluster.fail(65, make.verdict("OutOfMemory"))
    cluster.converge()
    assert configured(cluster) == '{"number":2}'
