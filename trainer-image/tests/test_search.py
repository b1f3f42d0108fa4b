"""A search before the training, in this process: its trials, its choice, and the training that follows."""

import json
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import tiny
import torch
from in_process import final_weights, finished, train_here
from searches import journal, make_search

from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.search import PlannedParameters, PlannedRange, Pruner, Search
from hone_trainer import train
from hone_trainer.data.prepared import load_prepared
from hone_trainer.objectives.trainer import TrainerMixin
from hone_trainer.protocol.planfile import require_plan
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.protocol.searchfile import load_search
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.reports.charts import trial_charts
from hone_trainer.search import base
from hone_trainer.search.conduct import Conductor
from hone_trainer.search.study import JOURNAL
from hone_trainer.search.trial import RewardWatch

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True, scope="module")
def _rank() -> Iterator[None]:
    with tiny.only_rank():
        yield


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Over all weights."""
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def test_a_rate_that_is_far_from_the_default_is_found_and_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_search(tmp_path, trials=6, learning_rate=1e-4, steps=24)
    train_here(tmp_path, monkeypatch)
    record = load_search(config)
    assert record and record.summary.best
    assert record.trials[0].parameters.learning_rate == 1e-4
    chosen = record.chosen.learning_rate
    assert chosen and chosen > 1e-3 and chosen == record.summary.best.parameters.learning_rate
    assert record.improvement and record.improvement[1] > 0
    assert record.summary.done == 6 and record.summary.spent == sum(trial.steps for trial in record.trials)
    assert record.summary.spent <= 6 * 12 and record.summary.pruned
    # Training, finish and the report have the rate that was chosen.
    assert require_plan(config).plan.learning_rate == chosen
    state = next(Path(config.paths.run).glob("checkpoints/checkpoint-24/trainer_state.json"))
    assert max(line.get("learning_rate", 0) for line in json.loads(state.read_text())["log_history"]) > 1e-3
    status = StatusDir(tmp_path / "status").statuses()[0]
    assert status.stage == "Done" and status.step == 24 and status.search == record.summary
    report = finished(config)
    assert report.search == record and report.plan.learning_rate == chosen


@pytest.mark.parametrize(
    ("objective", "method"),
    [
        (Objective.SFT, MethodType.LORA),
        (Objective.SFT, MethodType.QLORA),
        (Objective.SFT, MethodType.FULL),
        (Objective.CLASSIFICATION, MethodType.LORA),
        (Objective.CLASSIFICATION, MethodType.QLORA),
        (Objective.CLASSIFICATION, MethodType.FULL),
        (Objective.DPO, MethodType.LORA),
        (Objective.DPO, MethodType.QLORA),
        (Objective.DPO, MethodType.FULL),
        (Objective.KTO, MethodType.LORA),
        (Objective.REWARD, MethodType.LORA),
        (Objective.ORPO, MethodType.LORA),
        (Objective.GRPO, MethodType.LORA),
        (Objective.GRPO, MethodType.QLORA),
        (Objective.GRPO, MethodType.FULL),
        (Objective.RLOO, MethodType.LORA),
    ],
)
def test_every_trial_begins_with_the_untrained_model_and_so_does_the_training(
    objective: Objective, method: MethodType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"objective": objective, "method": method, "learning_rate": 3e-3, "evaluate": 3}
    if OBJECTIVES[objective].needs.reward:
        # Answers to a prompt are as many as the rows of a micro-batch; nothing is evaluated.
        options |= {"micro_batch": 8, "evaluate": None}
    alone = tiny.make_run(tmp_path / "alone", **options)
    train_here(tmp_path / "alone", monkeypatch)
    same = PlannedParameters(learning_rate=PlannedRange(values=[3e-3]))
    config = make_search(
        tmp_path / "search",
        trials=3,
        steps_per_trial=4,
        parameters=same,
        search=Search(trials=3, pruner=Pruner.NONE),
        shared=tmp_path / "alone",
        **options,
    )
    loads: list[object] = []
    keep = base.LoadedBase.keep
    monkeypatch.setattr(base.LoadedBase, "keep", lambda self, model: (loads.append(model), keep(self, model))[1])
    train_here(tmp_path / "search", monkeypatch)
    first, *others = journal(config)
    assert len(others) == 2 and len(first[3]) == 3
    assert all(trial[3] == first[3] for trial in others)
    record = load_search(config)
    assert record and record.chosen.to_dict() == {}
    assert len(loads) == 1, "the model was loaded again"
    assert difference(final_weights(alone), final_weights(config)) == 0.0


def test_rewarded_trials_are_judged_by_the_reward_of_the_latest_half_of_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = PlannedParameters(learning_rate=PlannedRange(values=[1e-6, 2e-3]))
    config = make_search(
        tmp_path,
        objective=Objective.GRPO,
        method=MethodType.FULL,
        learning_rate=1e-6,
        micro_batch=32,
        evaluate=None,
        steps=16,
        trials=4,
        steps_per_trial=16,
        parameters=rates,
    )
    rewards: list[float] = []
    on_log = RewardWatch.on_log

    def watched(self: RewardWatch, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        rewards.extend([logs["reward"]] if logs and "reward" in logs else [])
        on_log(self, args, state, control, logs, **more)

    monkeypatch.setattr(RewardWatch, "on_log", watched)
    train_here(tmp_path, monkeypatch)
    record = load_search(config)
    assert record and record.summary.best and record.chosen.learning_rate == 2e-3, record
    first, best = record.trials[0], record.trials[record.summary.best.number]
    # Trial 0 alone comes to step 16 first: 8 steps on.
    assert [point.step for point in first.curve] == [4, 8, 16]
    assert [point.reward for point in first.curve] == pytest.approx(
        [sum(rewards[2:4]) / 2, sum(rewards[4:8]) / 4, sum(rewards[8:16]) / 8]
    )
    assert best.curve[-1].reward == record.summary.best.value and best.curve[-1].loss is None
    gain, lower, _ = record.improvement or (0.0, 0.0, 0.0)
    assert gain == pytest.approx(record.summary.best.value - (first.curve[-1].reward or 0)) and lower > 0
    assert "reward" in (record.summary.outcome or "")
    assert "Reward in trials" in [chart.title for chart in trial_charts(record)]


def test_a_trial_leaves_no_gradients_and_no_optimizer_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    take_back = base.LoadedBase.take_back

    def observed(self: base.LoadedBase, trainer: Any) -> None:
        tensors = [value for state in trainer.optimizer.state.values() for value in state.values()]
        tensors += [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
        of_trial = [weakref.ref(tensor) for tensor in tensors]
        assert of_trial
        del tensors
        take_back(self, trainer)
        left.append(sum(reference() is not None for reference in of_trial))

    monkeypatch.setattr(base.LoadedBase, "take_back", observed)
    make_search(tmp_path, trials=2, steps_per_trial=4, method=MethodType.FULL, steps=4)
    train_here(tmp_path, monkeypatch)
    assert left == [0, 0]


def test_where_memory_suffices_for_no_trial_without_zero_the_plan_s_settings_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_search(tmp_path, trials=2)
    plan = require_plan(config).plan.model_copy(update={"zero_stage": 2})
    monkeypatch.setattr(Conductor, "_device", lambda _: torch.device("cpu"))
    monkeypatch.setattr(Conductor, "_trial", lambda *_: pytest.fail("a trial was made"))
    first, unused = RankStatus(rank=0, pid=1, total_steps=plan.total_steps), cast("Any", None)
    record = Conductor(config, plan, unused, unused, first, unused, unused, unused, unused).conduct()
    assert record.chosen.to_dict() == {}
    assert load_search(config) == record.model_copy(update={"run_config": digest_of(config)})


def test_settings_of_an_adapter_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = PlannedParameters(
        rank=PlannedRange(values=[2, 16]),
        dropout=PlannedRange(min=0.0, max=0.4),
        warmup_ratio=PlannedRange(min=0.0, max=0.5),
        weight_decay=PlannedRange(values=[0.0, 0.1]),
    )
    config = make_search(tmp_path, trials=5, steps_per_trial=8, parameters=parameters, learning_rate=1e-3)
    ratio = require_plan(config).plan.lora_alpha / require_plan(config).plan.lora_rank
    seen: list[Any] = []
    make_trainer = train._make_trainer

    def record_plan(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[3])
        return make_trainer(*args, **kwargs)

    monkeypatch.setattr(train, "_make_trainer", record_plan)
    train_here(tmp_path, monkeypatch)
    assert {plan.lora_rank for plan in seen[1:]} >= {2, 16}
    assert all(plan.lora_alpha == round(ratio * plan.lora_rank) for plan in seen)
    assert len({plan.lora_dropout for plan in seen}) > 2 and len({plan.warmup_ratio for plan in seen}) > 2


def test_no_trial_reads_test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Untouchable:
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(f"the test rows were touched: {name}")

        def __len__(self) -> int:
            raise AssertionError("the test rows were counted")

    def without_test(*args: Any) -> Any:
        prepared = load_prepared(*args)
        # Nor by another way: the files are gone.
        shutil.rmtree(prepared.directory / "test")
        return replace(prepared, test=Untouchable())

    monkeypatch.setattr(train, "load_prepared", without_test)
    config = make_search(tmp_path, trials=2, steps_per_trial=4)
    train_here(tmp_path, monkeypatch)
    assert load_search(config)


def test_a_trial_that_runs_out_of_memory_or_diverges_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = PlannedParameters(learning_rate=PlannedRange(values=[2e-3, 4e-3, 8e-3]))
    config = make_search(tmp_path, trials=7, steps_per_trial=4, parameters=parameters, learning_rate=1e-3)
    step = TrainerMixin.micro_batch_step

    def struck(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.plan.learning_rate == 4e-3 and self.state.global_step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (injected)")
        loss = step(self, *args, **kwargs)
        if self.plan.learning_rate == 8e-3:
            self.health.add_loss(torch.tensor(float("nan")))
        return loss

    monkeypatch.setattr(TrainerMixin, "micro_batch_step", struck)
    train_here(tmp_path, monkeypatch)
    record = load_search(config)
    assert record and record.summary.done == 7
    by_rate = {trial.parameters.learning_rate: trial for trial in record.trials}
    assert (by_rate[4e-3].state, by_rate[4e-3].reason) == ("Failed", "it ran out of memory")
    assert (by_rate[8e-3].state, by_rate[8e-3].reason) == ("Failed", "its loss was not finite")
    assert by_rate[1e-3].state == "Complete" and record.chosen.learning_rate not in (4e-3, 8e-3)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that runs after it is told."""


@pytest.mark.parametrize("moment", ["in the second trial", "before it is written", "after it is written", "choosing"])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_search(tmp_path / "whole", trials=4, steps_per_trial=8)
    train_here(tmp_path / "whole", monkeypatch)
    config = make_search(tmp_path / "killed", trials=4, steps_per_trial=8, shared=tmp_path / "whole")
    place = {
        "in the second trial": "hone_trainer.search.trial.TrialWatch.on_evaluate",
        "before it is written": "optuna.study.Study.add_trial",
        "after it is written": "hone_trainer.search.conduct.Conductor._report",
        "choosing": "hone_trainer.search.choice.choose",
    }[moment]
    calls = {"in the second trial": 5, "before it is written": 4, "after it is written": 8, "choosing": 1}[moment]
    with monkeypatch.context() as patch:
        _kill_at(patch, place, calls)
        with pytest.raises(Killed):
            train_here(tmp_path / "killed", monkeypatch)
    assert load_search(config) is None
    # What a write that was cut short leaves.
    path = Path(config.paths.run) / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"op_code":4,"work')
    path.with_name("journal.log.lock").touch()
    before = len(journal(config))
    assert before == {"choosing": 4}.get(moment, 1) or moment == "after it is written"
    train_here(tmp_path / "killed", monkeypatch)
    assert journal(config) == journal(whole)
    one, other = load_search(config), load_search(whole)
    assert one and other and one.model_copy(update={"run_config": ""}) == other.model_copy(update={"run_config": ""})
    assert difference(final_weights(config), final_weights(whole)) == 0.0


def _kill_at(patch: pytest.MonkeyPatch, place: str, calls: int) -> None:
    """End the process, as far as it can tell, when a function is called for the n-th time."""
    count = 0
    import pkgutil

    original = pkgutil.resolve_name(place)

    def killed(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            raise Killed
        return original(*args, **kwargs)

    patch.setattr(place, killed)
