"""What prepare makes of prompts and rewards: rows, plan and refusals. The user's code is never run."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import tiny

from hone.contract.rewards import RewardFunction
from hone.contract.runconfig import RunConfig
from hone_trainer.data.prepared import load_prepared
from hone_trainer.models.architectures import SCORER
from hone_trainer.models.facts import read_model
from hone_trainer.planning.memory import estimate_memory
from hone_trainer.planning.memory_terms import TrainingStep
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.rewards.code import load_function

pytestmark = pytest.mark.slow

MATCH = {"functions": [{"name": "ExactMatch"}]}


def prompt_row(i: int, **more: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": f"Order {i}: is it good?"}], "reference": "positive", **more}


ROWS = [prompt_row(i) for i in range(300)]


@pytest.fixture
def planned(make_config: Any) -> Any:
    """Prepares prompts with the given sections of the RunConfig."""

    def run(rows: Iterable[Any] = ROWS, objective: str = "GRPO", **sections: Any) -> PlanFile:
        config = make_config(rows, **{"objective": objective, "reward": MATCH, **sections})
        return prepare(RunConfig.from_dict(config))

    return run


def test_prompts_are_prepared_with_room_for_the_longest_answer(planned: Any) -> None:
    result = planned(hyperparameters={"maxCompletionLength": 20})
    prepared = load_prepared(result.prepared)
    assert (result.dataset.format, result.dataset.train_on) == ("Prompt", "Answers")
    assert all(row["length"] == len(row["prompt_ids"]) + 20 for row in prepared.train)
    assert result.plan.sequence_length == max(prepared.train["length"])
    assert prepared.test[0]["reference"] == "positive"


@pytest.mark.parametrize(
    ("objective", "processes", "generations", "batch", "beta"),
    [("GRPO", 1, 8, 64, 0.0), ("RLOO", 1, 4, 64, 0.05), ("GRPO", 3, 8, 72, 0.0)],
)
def test_defaults_are_told_with_their_reasons(
    planned: Any, objective: str, processes: int, generations: int, batch: int, beta: float
) -> None:
    plan = planned(objective=objective, topology={"processesPerNode": processes}).plan
    assert (plan.generations, plan.global_batch_size, plan.beta) == (generations, batch, beta)
    assert (plan.temperature, plan.max_completion_length) == (1.0, 128), "half of the model's 256"
    assert plan.total_steps == len(load_prepared(planned(objective=objective).prepared).train) // (batch // generations)
    assert f"{generations} to each of {batch // generations} prompts" in plan.reasons["globalBatchSize"]
    assert plan.evaluation_every_steps is None
    assert plan.scheduler == "Constant"


def test_a_second_copy_of_the_model_is_counted_where_full_is_held_to_the_base(planned: Any) -> None:
    weights = {
        beta: planned(method={"type": "Full"}, hyperparameters={"beta": beta}).plan.memory.weights_bytes
        for beta in (0.0, 0.1)
    }
    assert weights[0.1] == 2 * weights[0.0]


def test_keys_and_values_of_answers_written_at_once_are_counted_where_they_need_most(tiny_model: Path) -> None:
    facts = read_model(str(tiny_model))
    assert facts.cached_values == 2 * 2 * 32, "keys and values of two layers"
    step = {"trainable": 0, "weight_bytes": 4, "on_gpu": False, "world_size": 1, "zero_stage": 0, "limit_bytes": None}
    step |= {"micro_batch_size": 1, "accumulates": True, "sequence_length": 100, "gradient_checkpointing": True}
    few, many = (
        estimate_memory(TrainingStep(facts, None, **step, generated_at_once=count)).activations_bytes
        for count in (1, 999)
    )
    assert few == estimate_memory(TrainingStep(facts, None, **step)).activations_bytes
    assert many == 999 * 100 * 128 * 4


@pytest.mark.parametrize(
    ("sections", "field", "message"),
    [
        pytest.param({"reward": None}, "spec.reward", "is required with", id="no reward"),
        pytest.param({"objective": "SFT"}, "spec.reward", "only with objective GRPO or RLOO", id="SFT with rewards"),
        pytest.param(
            {"hyperparameters": {"globalBatchSize": 12}},
            "spec.hyperparameters.globalBatchSize",
            "12 is not a multiple of both 8 answers to each prompt",
            id="half of the answers to a prompt",
        ),
        pytest.param(
            {"hyperparameters": {"globalBatchSize": 4000}},
            "spec.hyperparameters.globalBatchSize",
            "a step needs 500 prompts",
            id="fewer prompts than a step has",
        ),
        pytest.param(
            {"hyperparameters": {"maxCompletionLength": 256}},
            "spec.hyperparameters.maxCompletionLength",
            "leave no room for a prompt: the model's context is 256 tokens",
            id="answers as long as the context",
        ),
        pytest.param(
            {"rows": [prompt_row(i, reference=None) for i in range(300)]},
            "spec.dataset.train",
            "no `reference`, but the reward function ExactMatch compares answers with it",
            id="no references",
        ),
        pytest.param(
            {"rows": [*ROWS, {"prompt": "Is it?", "reference": "a"}]},
            "spec.dataset.train",
            "some prompts are strings and others are lists",
            id="strings and messages",
        ),
        pytest.param(
            {"rows": [{"text": "a", "label": "b"}] * 300}, "spec.objective", "is GRPO, but the rows have", id="classes"
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(
    planned: Any, sections: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(BadInput) as error:
        planned(**sections)
    assert error.value.field == field
    assert message in error.value.message


def test_a_few_rows_that_do_not_fit_are_left_out_and_told(planned: Any) -> None:
    long = prompt_row(7, prompt=[{"role": "user", "content": "is it good? " * 100}])
    result = planned([*ROWS, long, prompt_row(8, reference=None)])
    reasons = {bad.reason.partition(":")[0]: bad.count for bad in result.dataset.bad_rows}
    assert reasons == {
        "the prompt is too long": 1,
        "no `reference`, but the reward function ExactMatch compares answers with it": 1,
    }


def test_no_prompt_that_is_answered_in_training_is_tested(planned: Any, tiny_model: Path) -> None:
    def row(i: int) -> dict[str, Any]:
        turns = [("assistant", f"Why {i}?"), ("user", f"Because of {i}."), ("assistant", "Then yes.")]
        return {**prompt_row(i // 4), "completion": [{"role": role, "content": content} for role, content in turns]}

    rows = [{name: value for name, value in row(i).items() if name != "reference"} for i in range(800)]
    result = planned(rows, "Distillation", reward=None, paths={"teacher": str(tiny_model)})
    prepared = load_prepared(result.prepared)
    train, test = ({*map(tuple, split["prompt_ids"][:])} for split in (prepared.train, prepared.test))
    assert test
    assert not train & test


def test_own_code_is_read_and_not_run(planned: Any, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "reward.py"
    path.write_text(
        f"open({str(mark)!r}, 'w')\ndef reward(completions, **kwargs):\n    return [0] * len(completions)\n"
    )
    function = {"mounted": str(path), "file": str(tmp_path / "run/rewards/0.py"), "source": "rewards/mine.py"}
    assert planned(reward={"functions": [function]}).plan.total_steps > 0
    assert not mark.exists()
    with pytest.raises(BadInput, match="no function `grade`"):
        planned(reward={"functions": [{**function, "function": "grade"}]})


def test_what_is_run_is_the_code_that_was_checked(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    mounted, copy = tmp_path / "reward.py", tmp_path / "run/rewards/0.py"
    mounted.write_text("def reward(completions, **kwargs):\n    return [1.0] * len(completions)\n")
    function = {"mounted": str(mounted), "file": str(copy), "source": "rewards/mine.py"}

    def reward() -> list[float | None]:
        planned(reward={"functions": [function]})
        return load_function("spec.reward.functions[0]", RewardFunction.from_dict(function))(
            prompts=["?"], completions=["a"]
        )

    assert reward() == [1.0]
    mounted.write_text("def reward(completions, **kwargs):\n    return [2.0] * len(completions)\n")
    assert reward() == [1.0], "the plan was made by the first"
    assert [path.name for path in copy.parent.iterdir()] == ["0.py"]


def test_unused_validation_rows_are_not_missed(planned: Any) -> None:
    plan = planned(data={"validationFraction": 0.001}).plan
    assert not any("validation" in warning for warning in plan.warnings)


def test_a_reward_model_is_counted(planned: Any, tmp_path: Path) -> None:
    scorer = tiny.make_reward_model(tmp_path / "scorer")
    # As the tiny model of these tests, it has a chat template; nothing else is alike.
    scored = planned(reward={"functions": []}, paths={"rewardModel": str(scorer)}).plan.memory.weights_bytes
    parameters = read_model(str(scorer), SCORER).parameters
    assert scored == planned().plan.memory.weights_bytes + 4 * parameters


def test_a_reward_model_must_be_one(planned: Any, tiny_model: Path, tmp_path: Path) -> None:
    run = {"reward": {"functions": []}}
    with pytest.raises(BadInput, match=r"spec\.reward\.model: is LlamaForCausalLM with 2 outputs"):
        planned(**run, paths={"rewardModel": str(tiny_model)})
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"spec\.reward\.model: is an adapter") as error:
        planned(**run, paths={"rewardModel": str(tmp_path / "adapter")})
    assert "spec.output.merge" in str(error.value.hint)
    with pytest.raises(BadInput, match=r"spec\.reward\.model.*there is no directory"):
        planned(**run, paths={"rewardModel": str(tmp_path / "none")})
