"""Prepared pairs and rated answers: the columns that TRL's trainers take, what is cut, split and reported of them."""

from collections.abc import Callable
from typing import Any

import pytest

from hone.contract.runconfig import RunConfig
from hone_trainer.data.prepared import Prepared, load_prepared
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import PlanFile

pytestmark = pytest.mark.slow

MORE = {"Reward": {"chosen_ids", "rejected_ids"}, "DPO": {"prompt_ids", "chosen_ids", "rejected_ids"}}


def pair(i: int, words: int = 1) -> dict[str, Any]:
    good, bad = ("yes", "no") if i % 3 else ("no", "yes")
    return {
        "prompt": [{"role": "user", "content": f"Is it {i}?"}],
        "chosen": [{"role": "assistant", "content": " ".join([good] * words)}],
        "rejected": [{"role": "assistant", "content": bad}],
    }


def rated(i: int) -> dict[str, Any]:
    return {"prompt": f"Is it {i}?", "completion": f" yes, {i}", "label": i % 4 > 0}


@pytest.fixture
def prepared_from(make_config: Any) -> Callable[..., tuple[Prepared, PlanFile]]:
    """Prepares rows with the given sections of the RunConfig."""

    def run(rows: list[dict[str, Any]], **sections: Any) -> tuple[Prepared, PlanFile]:
        result = prepare(RunConfig.from_dict(make_config(rows, **sections)))
        return load_prepared(result.prepared), result

    return run


@pytest.mark.parametrize("objective", MORE)
def test_pairs_have_the_columns_that_the_trainer_takes(prepared_from: Callable, objective: str) -> None:
    prepared, result = prepared_from([pair(i) for i in range(200)], objective=objective)
    assert set(prepared.train.column_names) == {*MORE[objective], "length"}
    assert set(prepared.test.column_names) == {*MORE[objective], "length", "prompt_ids", "reference", "prompt"}
    assert (result.dataset.format, result.dataset.train_on) == ("Preference", "Pair")
    assert result.plan.objective == objective
    assert "rather than" in (result.dataset.example or "")
    for row in prepared.test:
        assert row["prompt"].endswith("assistant\n")
        assert row["reference"] in ("yes", "no")


def test_one_data_set_is_prepared_for_either_objective(make_config: Any) -> None:
    rows = [pair(i) for i in range(100)]
    directories = [prepare(RunConfig.from_dict(make_config(rows, objective=objective))).prepared for objective in MORE]
    assert len(set(directories)) == 2


def test_answers_are_cut_and_prompts_never(prepared_from: Callable) -> None:
    rows = [pair(i, words=40 if i < 12 else 1) for i in range(200)]
    longest = 30
    prepared, result = prepared_from(rows, objective="DPO", hyperparameters={"sequenceLength": longest})
    assert result.dataset.truncated_rows > 0
    for row in prepared.train:
        lengths = [len(row["prompt_ids"]) + len(row[name]) for name in ("chosen_ids", "rejected_ids")]
        assert max(lengths) == row["length"] <= longest
        assert min(lengths) > len(row["prompt_ids"])


def test_a_prompt_that_leaves_no_room_for_an_answer_is_a_fault(prepared_from: Callable) -> None:
    rows = [pair(i) for i in range(200)]
    for row in rows[:5]:
        row["prompt"][0]["content"] += " and" * 60
    prepared, result = prepared_from(rows, objective="DPO", hyperparameters={"sequenceLength": 30})
    assert sum(bad.count for bad in result.dataset.bad_rows if "nothing to train on" in bad.reason) > 0
    assert max(prepared.train["length"]) <= 30


def test_a_rated_answer_is_compared_with_that_of_the_row_before(prepared_from: Callable) -> None:
    prepared, result = prepared_from([rated(i) for i in range(200)], objective="KTO")
    for split in (prepared.train, prepared.validation):
        answers = split["completion_ids"][:]
        assert split["KL_completion_ids"][:] == [answers[-1], *answers[:-1]]
    assert "KL_completion_ids" not in prepared.test.column_names
    labels = prepared.train["label"][:]
    assert {label.label: label.rows for label in result.dataset.classes or []} == {
        "true": sum(labels),
        "false": len(labels) - sum(labels),
    }
    assert result.plan.balance == "Weight"
    assert "bad ones weigh" in result.plan.reasons["balance"]
    assert not [warning for warning in result.plan.warnings if "macroF1" in warning]


def test_ratings_that_are_all_the_same_are_refused(prepared_from: Callable) -> None:
    with pytest.raises(BadInput, match="the same label, `true`"):
        prepared_from([{**rated(i), "label": True} for i in range(50)], objective="KTO")


def test_rated_answers_are_not_taken_for_another_objectives_rows(prepared_from: Callable) -> None:
    with pytest.raises(BadInput, match="is SFT, but the rows have `prompt` and `completion` and `label`") as error:
        prepared_from([rated(i) for i in range(50)])
    assert "Set it to KTO" in error.value.hint
