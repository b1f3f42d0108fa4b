"""Generated requests with tools: the same for a seed, calls that their tools allow, and rows that Hone reads."""

import json
from itertools import islice

import pytest

from dev.data import calls
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample

ROWS = list(calls.rows(300, 7))
PARAMETERS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in calls.TOOLS}


def test_the_same_seed_gives_the_same_rows_and_more_rows_only_add_to_fewer() -> None:
    assert list(calls.rows(100, 7)) == ROWS[:100]
    assert list(calls.rows(100, 8)) != ROWS[:100]


def test_every_tool_is_called_with_all_its_arguments_and_no_other() -> None:
    written = [call for row in ROWS if (call := calls.call_of(row))]
    assert {name for name, _ in written} == set(PARAMETERS)
    for name, arguments in written:
        assert list(arguments) == PARAMETERS[name]["required"] == list(PARAMETERS[name]["properties"])


def test_some_rows_end_in_words_with_and_without_a_result_before() -> None:
    roles = {tuple(message["role"] for message in row["messages"]) for row in ROWS if not calls.call_of(row)}
    assert roles == {("user", "assistant"), ("user", "assistant", "tool", "assistant")}
    assert sum(calls.call_of(row) is not None for row in ROWS) > len(ROWS) / 2, "calls are the main metric"


def test_hone_reads_every_row() -> None:
    for row in islice(ROWS, 50):
        sample = to_sample(json.loads(json.dumps(row)), DataFormat.MESSAGES)
        assert len(sample.tools) == len(calls.TOOLS)
        assert len(sample.messages) == len(row["messages"])


def test_a_number_of_rows_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to"):
        next(calls.rows(0, 1))
