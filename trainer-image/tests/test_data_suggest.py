"""Where columns are missing, the refusal names the user's own columns that are probably meant, if any are."""

from pathlib import Path
from typing import Any

import pytest
from rows import write_jsonl

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.settings import DataFormat
from hone_trainer.data.sources import find_source
from hone_trainer.data.suggest import suggestion
from hone_trainer.data.survey import survey
from hone_trainer.protocol.errors import BadInput

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAPES = [
    (
        Objective.SFT,
        {"Instruction": "a", "Input": "b", "Output": "c"},
        "instruction: Instruction, output: Output, input",
    ),
    (Objective.SFT, {"Instruction": "a", "Input": "", "Output": "c"}, "output: Output, input: Input"),
    (Objective.SFT, {"prompt": "a", "response": "c"}, "completion: response"),
    (Objective.SFT, {"query": "a", "response": "c", "system": "s"}, "instruction: query, output: response"),
    (Objective.SFT, {"instruction": "a", "context": "b", "response": "c"}, "output: response, input: context"),
    (
        Objective.SFT,
        {"system_prompt": "s", "question": "q", "response": "r"},
        "instruction: question, output: response",
    ),
    (Objective.SFT, {"id": "x", "body": {"model": "m", "messages": CHAT}}, "messages: body.messages"),
    (Objective.SFT, {"chat": CHAT}, "messages: chat"),
    (Objective.GRPO, {"question": "a", "answer": "b"}, "prompt: question, reference: answer"),
    (Objective.DPO, {"query": "q", "response": "a", "rejected_response": "b"}, "chosen: response, rejected: rejected_"),
    (Objective.CLASSIFICATION, {"sentence": "a", "label": 1}, "text: sentence"),
]
NOTHING = [
    (Objective.SFT, {"chat": "USER: a ASSISTANT: b"}),
    (Objective.SFT, {"conversation": [{"input": "a", "output": "b"}]}),
    (Objective.SFT, {"question": "", "answer": None}),
    (Objective.SFT, {"a": {"my question?": "a"}}),
    (Objective.CLASSIFICATION, {"premise": "a", "hypothesis": "b", "label": 1}),
]


@pytest.mark.parametrize(("objective", "row", "words"), SHAPES)
def test_a_refusal_names_the_columns_that_are_meant_and_they_can_be_used(
    tmp_path: Path, objective: Objective, row: dict[str, Any], words: str
) -> None:
    facts, path = OBJECTIVES[objective], str(write_jsonl(tmp_path / "rows.jsonl", [row] * 3))
    with pytest.raises(BadInput) as error:
        survey([find_source("train", path)], DataFormat.AUTO, 0.0, 0.0, facts.data.formats)
    assert words in error.value.hint
    written = error.value.hint.partition("{")[2].partition("}")[0]
    columns = dict(pair.split(": ") for pair in written.split(", "))
    source = find_source("train", path, columns=columns)
    assert len(survey([source], DataFormat.AUTO, 0.0, 0.0, facts.data.formats).refs) == 3


@pytest.mark.parametrize(("objective", "row"), NOTHING)
def test_nothing_is_guessed_where_no_name_fits(objective: Objective, row: dict[str, Any]) -> None:
    assert suggestion(row, OBJECTIVES[objective].data.formats) is None
