"""The reasoning of answers: kept or dropped as the spec says, and no part of what is compared."""

from pathlib import Path
from typing import Any

import pytest
from rows import write_jsonl

from hone.contract.metrics import Metric
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample
from hone_trainer.data.reasoning import visible, without_reasoning
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import Source, find_source
from hone_trainer.data.survey import good_samples, survey
from hone_trainer.protocol.errors import RowFault
from hone_trainer.scores.texts import measure

USER, ANSWER = {"role": "user", "content": "<think>Is it?</think>"}, {"role": "assistant", "content": "Yes."}
THOUGHT = "<think>\nIt may be\nso.\n</think>\n\n"
THOUGHTFUL = {"role": "assistant", "content": f"{THOUGHT}Yes."}


@pytest.mark.parametrize("answer", [THOUGHTFUL, {**ANSWER, "reasoning_content": "It may be so."}, ANSWER])
def test_dropped_reasoning_leaves_the_answer_and_the_users_words(answer: dict[str, str]) -> None:
    sample = to_sample({"messages": [USER, answer, USER, answer]}, DataFormat.MESSAGES)
    assert without_reasoning(sample).messages == (USER, ANSWER, USER, ANSWER)


def test_reasoning_is_dropped_from_both_answers_and_from_text() -> None:
    worse = {"role": "assistant", "content": f"{THOUGHT}No."}
    pair = to_sample({"prompt": [USER], "chosen": [THOUGHTFUL], "rejected": [worse]}, DataFormat.PREFERENCE)
    assert without_reasoning(pair).rejected == ({"role": "assistant", "content": "No."},)
    assert without_reasoning(pair).messages == (USER, ANSWER)
    text = Sample(prompt="a <think>b</think>", completion=f"{THOUGHT}c", rejected=f"{THOUGHT}d")
    assert without_reasoning(text) == Sample(prompt="a <think>b</think>", completion="c", rejected="d")


def test_an_answer_that_is_nothing_but_reasoning_is_a_fault() -> None:
    with pytest.raises(RowFault, match=r"spec\.dataset\.reasoning is Drop"):
        without_reasoning(Sample(prompt="a", completion=THOUGHT))


@pytest.mark.parametrize(("drop", "contents"), [(False, [f"{THOUGHT}Yes."]), (True, ["Yes."])])
def test_both_passes_drop_it_or_keep_it(tmp_path: Path, drop: bool, contents: list[str]) -> None:
    written = find_source("train", str(write_jsonl(tmp_path / "rows.jsonl", [{"messages": [USER, THOUGHTFUL]}])))
    source = Source(written.name, written.files, drop_reasoning=drop)
    assert len(survey([source], DataFormat.MESSAGES, 0.0, 0.0).refs) == 1
    samples: list[Any] = [sample for _, sample in good_samples([source], DataFormat.MESSAGES)]
    assert [sample.messages[-1]["content"] for sample in samples] == contents


def test_answers_are_compared_without_their_reasoning() -> None:
    assert visible(f"{THOUGHT} Yes.\n") == visible("It may be.</think>Yes.") == visible("Yes.") == "Yes."
    answers = [f"{THOUGHT}Yes.", "Yes.", "No.</think>Yes.", "Yes.</think>No."]
    assert measure(Metric.EXACT_MATCH, answers, ["Yes.", f"{THOUGHT}Yes.", "Yes.", "Yes."]) == [1, 1, 1, 0]
