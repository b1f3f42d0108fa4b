"""`evaluation.groupBy` from the user's rows to the prepared test split."""

from typing import Any

import pytest
from rows import chat_row

from hone.contract.runconfig import RunConfig
from hone_trainer.data.groups import EVALUATION_GROUP
from hone_trainer.data.prepared import load_prepared
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput

pytestmark = pytest.mark.slow


def rows() -> list[dict[str, Any]]:
    """The team of a row is in its text, too."""
    teams = ("red", "blue", None)
    return [
        {"messages": [{**turn, "content": f"{teams[i % 3]} {turn['content']}"} for turn in row["messages"]]}
        | ({"team": teams[i % 3]} if teams[i % 3] else {})
        for i, row in enumerate(map(chat_row, range(300)))
    ]


def test_each_test_row_has_the_group_of_its_own_row(make_config: Any) -> None:
    planned = prepare(RunConfig.from_dict(make_config(rows(), evaluation={"groupBy": "team"})))
    prepared = load_prepared(planned.prepared)
    assert EVALUATION_GROUP not in prepared.train.column_names
    groups, prompts = prepared.test[EVALUATION_GROUP][:], prepared.test["prompt"][:]
    assert {*groups} == {"red", "blue", ""}
    for group, prompt in zip(groups, prompts, strict=True):
        assert f"{group or None} " in prompt
    assert not [key for key in planned.dataset.unused_keys if "team" in key.key], "it is used"


def test_without_groups_the_test_split_is_as_before_and_the_data_are_others(make_config: Any) -> None:
    plain = prepare(RunConfig.from_dict(make_config(rows())))
    assert EVALUATION_GROUP not in load_prepared(plain.prepared).test.column_names
    other = f"{plain.prepared}-run"
    config = make_config(rows(), evaluation={"groupBy": "team"}, paths={"run": other})
    grouped = prepare(RunConfig.from_dict(config))
    assert grouped.prepared != plain.prepared


def test_a_column_that_no_row_has_is_refused_by_its_field(make_config: Any) -> None:
    with pytest.raises(BadInput, match=r"spec\.evaluation\.groupBy"):
        prepare(RunConfig.from_dict(make_config(rows(), evaluation={"groupBy": "squad"})))
