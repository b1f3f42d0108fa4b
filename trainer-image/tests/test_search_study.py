"""The plan of a search, the order of its trials, and the choice among them, without any training."""

import math
from pathlib import Path
from typing import Any

import pytest
from test_plan import gang, plan_of, refusal_of

from hone.contract.search import PlannedParameters, PlannedRange, PlannedSearch, Sampler, Search, Values
from hone_trainer.search import choice
from hone_trainer.search.study import JOURNAL, Study, evaluation_steps, settings

RATE = PlannedParameters(learning_rate=PlannedRange(min=1e-5, max=1e-3, log=True))
DEFAULT = Values(learning_rate=1e-4)
"""The plan's own setting."""
REWARDS: dict[str, Any] = {"reward": {"functions": [{"name": "ExactMatch"}]}}
VLLM: dict[str, Any] = {
    "answerServer": {"url": "http://127.0.0.1:8000", "adapters": "/mnt/adapters", "engine": "VLLM", "gpus": 0}
}
BY_RANK: dict[str, Any] = {"search": {"budgetFraction": 10.0, "parameters": {"rank": {"values": [8, 16]}}}}
BEST = 3e-4


def planned(trials: int = 8, steps: int = 40, parameters: PlannedParameters = RATE) -> PlannedSearch:
    return PlannedSearch(trials=trials, steps_per_trial=steps, total_steps=trials * steps, parameters=parameters)


def loss_of(values: Values, step: int) -> float:
    """A valley around the best rate, which is seen more clearly with more steps."""
    assert values.learning_rate
    return 1 / step + math.log10(values.learning_rate / BEST) ** 2


def searched(run: Path, search: Search, plan: PlannedSearch, ends: int | None = None) -> Study:
    """Make trials until all, or so many more, have ended."""
    from optuna.trial import TrialState

    study = Study(search, plan, DEFAULT, run)
    while not study.is_over and ends != 0:
        trial, values = study.begin()
        state, step = TrialState.COMPLETE, 0
        for step in evaluation_steps(plan.steps_per_trial):
            trial.report(loss_of(values, step), step)
            if step < plan.steps_per_trial and trial.should_prune():
                state = TrialState.PRUNED
                break
        study.end(trial, state, step)
        ends = ends and ends - 1
    return study


def shown(study: Study) -> list[tuple[Any, ...]]:
    return [(trial.number, settings(trial), trial.state, trial.intermediate_values) for trial in study.ended]


@pytest.mark.parametrize("sampler", Sampler)
def test_a_search_in_parts_makes_the_trials_of_one_in_one_go(sampler: Sampler, tmp_path: Path) -> None:
    search = Search(trials=8, sampler=sampler)
    whole = searched(tmp_path / "whole", search, planned())
    for _ in range(8):
        searched(tmp_path / "parts", search, planned(), ends=1)
        path = tmp_path / "parts" / JOURNAL
        path.write_bytes(path.read_bytes() + b'{"op_code":4,')
    assert shown(Study(search, planned(), DEFAULT, tmp_path / "parts")) == shown(whole)


def test_the_journal_can_be_cut_at_any_byte(tmp_path: Path) -> None:
    search = Search(trials=3)
    whole = shown(searched(tmp_path, search, planned(trials=3)))
    path = tmp_path / JOURNAL
    content = path.read_bytes()
    for size in range(0, len(content), 37):
        path.write_bytes(content[:size])
        trials = shown(Study(search, planned(trials=3), DEFAULT, tmp_path))
        assert trials == whole[: len(trials)]
        assert shown(searched(tmp_path, search, planned(trials=3))) == whole


@pytest.mark.parametrize("seed", range(10))
def test_eight_trials_come_close_to_the_best_rate(seed: int, tmp_path: Path) -> None:
    study = searched(tmp_path, Search(seed=seed), planned())
    assert settings(study.ended[0]) == DEFAULT
    best = choice.summary(planned(), study.ended).best
    assert best and abs(math.log10((best.parameters.learning_rate or 1) / BEST)) < 0.35
    assert any(trial.state.name == "PRUNED" for trial in study.ended)


@pytest.mark.parametrize(
    ("gain", "chosen"), [(0.2, True), (0.0001, False)], ids=["clearly better", "as good as the defaults"]
)
def test_the_defaults_are_trained_unless_another_trial_is_clearly_better(
    gain: float, chosen: bool, tmp_path: Path
) -> None:
    study = searched(tmp_path, Search(), planned())
    best = choice.summary(planned(), study.ended).best
    assert best and best.number
    losses = [1 + 0.1 * (row % 7) for row in range(40)]
    better = [loss - gain + 0.01 * (row % 3 - 1) for row, loss in enumerate(losses)]
    record = choice.choose(planned(), study.ended, lambda number: better if number == best.number else losses)
    assert record.chosen == (best.parameters if chosen else Values())
    assert ("defaults were as good" in (record.summary.outcome or "")) is not chosen
    assert record.improvement and (record.improvement[1] > 0) is chosen
    assert record.confidence == 0.999


@pytest.mark.parametrize("gain", [0.5, 0.01])
def test_trials_are_compared_also_where_the_memory_fallback_made_batches_smaller(gain: float, tmp_path: Path) -> None:
    study = searched(tmp_path, Search(), planned())
    before = [1 + 0.1 * (row % 7) for row in range(32)]
    after = [1 + 0.1 * (row % 7) - gain for row in range(64)]
    record = choice.choose(planned(), study.ended, lambda number: after if number else before)
    assert record.improvement and record.improvement[0] == pytest.approx(gain, abs=0.02)
    assert bool(record.chosen.to_dict()) is (gain == 0.5)


def test_without_any_trial_the_plan_s_settings_are_trained() -> None:
    record = choice.choose(planned(), [], lambda number: [])
    assert record.chosen == Values()
    assert record.summary.outcome and "no trial fits into memory" in record.summary.outcome


def test_the_plan_says_what_a_search_takes_at_most() -> None:
    plan = plan_of(search={"trials": 4, "budgetFraction": 1.0})
    search = plan.search
    assert search and search.trials == 4
    assert search.steps_per_trial == plan.total_steps // 4 and search.total_steps <= plan.total_steps
    rates = search.parameters.learning_rate
    assert rates and rates.log and rates.min == plan.learning_rate / 10 and rates.max == plan.learning_rate * 10
    assert search.parameters.rank is None
    assert "4 trials" in plan.reasons["search"]
    assert plan_of().search is None
    more = plan_of(search={"trials": 16}).search
    assert more and more.parameters.rank and more.parameters.rank.values == [8, 32, 128]


def test_rewarded_answers_are_searched_without_validation_rows() -> None:
    plan = plan_of(objective="GRPO", **REWARDS, search={"trials": 16, "budgetFraction": 10.0})
    search = plan.search
    assert plan.evaluation_every_steps is None
    assert search and search.trials == 16 and search.parameters.learning_rate and search.parameters.rank is None
    by_rank = plan_of(objective="GRPO", **REWARDS, **BY_RANK).search
    assert by_rank and by_rank.parameters.rank and by_rank.parameters.rank.values == [8, 16]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"search": {"budgetFraction": 0.01}}, "spec.search.budgetFraction"),
        ({"search": {}, "method": {"type": "Full"}, **gang(processes=2, gpus=2)}, "spec.search"),
        (
            {"search": {}, "objective": "Distillation", "paths": {"teacher": "/mnt/teacher"}},
            "spec.search",
        ),
        ({"search": {}, "objective": "GRPO", **REWARDS, **VLLM, **BY_RANK}, "spec.search.parameters.rank"),
        ({"search": {"parameters": {"rank": {"min": 8, "max": 8}}}}, "spec.search.parameters.rank.max"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_gpus_are_queued(spec: dict[str, Any], field: str) -> None:
    assert refusal_of(**spec).verdict().message.startswith(f"{field}: ")
