"""GRPO and RLOO: a rank in this process trains on a tiny model, continues exactly, and finish scores it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from in_process import final_weights, finished, train_here

from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.rewards import RewardFunction, Rewards
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.status import StatusDir
from hone_trainer.protocol.verdicts import Preempted, from_exception
from hone_trainer.training import callbacks

REWARDED = [objective for objective, facts in OBJECTIVES.items() if facts.needs.reward]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model and prompts, and this process as the rank of every run here."""
    root = tmp_path_factory.mktemp("asked")
    tiny.make_run(root, objective=Objective.GRPO, hidden=64, test_rows=60)
    with tiny.only_rank():
        yield root


@pytest.fixture
def rank(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Trains a run in this process, with `tiny.make_run`'s options; called again for the same name it continues."""

    def run(objective: Objective, name: str = "run", **options: object) -> RunConfig:
        root, settings = tmp_path / name, {"micro_batch": 8, "dropout": 0.0, "test_rows": 60, **options}
        config = tiny.make_run(root, objective=objective, shared=shared, **settings)
        train_here(root, monkeypatch)
        return config

    return run


@pytest.mark.train
@pytest.mark.parametrize("method", MethodType)
@pytest.mark.parametrize("objective", REWARDED)
def test_three_steps_of_each_method_end_in_a_model_that_chats(
    objective: Objective, method: MethodType, rank: Callable, tmp_path: Path
) -> None:
    report = finished(rank(objective, method=method, steps=3, every=3, accumulation=2, beta=0.05))
    kind = "Model" if method is MethodType.FULL else "Adapter"
    assert (report.artifact.kind, report.artifact.api, report.final_step) == (kind, "Chat", 3)
    score = report.evaluation.scores[0]
    assert (score.metric, score.samples) == ("reward", 60)
    reported = StatusDir(tmp_path / "run/status").statuses()[0]
    assert reported.reward is not None
    assert 0 <= reported.reward <= 1.2


@pytest.mark.train
@pytest.mark.parametrize("objective", REWARDED)
def test_it_learns_what_is_rewarded(objective: Objective, rank: Callable) -> None:
    report = finished(
        rank(objective, method=MethodType.FULL, steps=90, every=90, micro_batch=64, learning_rate=2e-3, beta=0.0)
    )
    score = report.evaluation.scores[0]
    assert score.improvement.lower > 0, score


@pytest.mark.train
def test_a_reward_model_and_own_code_are_learned_from_and_scored_one_by_one(rank: Callable, tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    path.write_text("def reward(completions, **_):\n    return [1.0, None] * (len(completions) // 2)\n")
    own = RewardFunction(file=str(path), source="rewards/half.py", weight=0.5)
    options = {"reward": Rewards(functions=[own]), "reward_model": tiny.make_reward_model(tmp_path / "scorer")}
    report = finished(rank(Objective.GRPO, steps=2, every=2, **options))
    total, model, half = report.evaluation.scores
    assert [score.metric for score in (total, model, half)] == ["reward", "model", "rewards/half.py:reward"]
    assert (total.samples, model.samples, half.samples) == (60, 60, 30), "half of the rows are not its own"
    assert half.tuned.value == 1.0
    assert total.tuned.value == pytest.approx(model.tuned.value + 0.25)
    assert "0.5 · rewards/half.py:reward" in report.notes[0]


@pytest.mark.train
def test_own_code_that_fails_ends_the_run_as_bad_input(rank: Callable, tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    path.write_text("def reward(completions, **_):\n    return [1 / 0 for _ in completions]\n")
    own = RewardFunction(file=str(path), source="rewards/half.py")
    with pytest.raises(BadInput, match="ZeroDivisionError in line 2; for a prompt") as error:
        rank(Objective.RLOO, steps=2, reward=Rewards(functions=[own]))
    assert from_exception(error.value, 0, 0, 0).failure_class == "BadInput"


@pytest.mark.train
@pytest.mark.parametrize(
    ("objective", "method"), [(Objective.GRPO, MethodType.LORA), (Objective.RLOO, MethodType.FULL)]
)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    objective: Objective, method: MethodType, rank: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pass over the 256 prompts is 8 steps of 32 for GRPO, and 4 of 64 for RLOO, which is cut in its second one.
    plan = {"method": method, "steps": 6, "every": 100, "accumulation": 2, "micro_batch": 128, "learning_rate": 1e-3}
    whole = rank(objective, "whole", **plan)
    original = callbacks.Checkpointing.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            self._status.raise_stop()
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpointing, "on_step_end", on_step_end)
        with pytest.raises(Preempted, match="at step 5"):
            rank(objective, "cut", **plan)
    (tmp_path / "cut/status/stop").unlink()
    first, second = final_weights(whole), final_weights(rank(objective, "cut", **plan))
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max().item() for name in first) == 0.0
