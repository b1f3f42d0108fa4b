"""Thousands of broken rows and files, by seed: each is read, or refused with words for it; nothing else is raised."""

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from data_files import GOOD_ROWS, KINDS, Row
from test_data_tools import EXPECTED
from test_data_tools import FUNCTION as TOOL

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.encode import Encoder
from hone_trainer.data.formats import detect, to_sample, used_columns
from hone_trainer.data.keys import unused_in
from hone_trainer.data.reasoning import without_reasoning
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import find_source
from hone_trainer.data.splits import first_turn_key, prompt_key, row_key
from hone_trainer.data.survey import good_samples, survey
from hone_trainer.protocol.errors import BadInput, RowFault

ROWS_PER_FORMAT, FILES_PER_KIND = 2000, 60
FORMATS = [format for format in DataFormat if format is not DataFormat.AUTO]
KEYS = (
    *("messages", "conversations", "prompt", "completion", "chosen", "rejected", "label", "system", "tools", "input"),
    *(
        "role",
        "content",
        "from",
        "value",
        "weight",
        "train",
        "loss",
        "reasoning_content",
        "tool_calls",
        "function_call",
    ),
    *("function", "arguments", "name", "type", "text", "id", "images", "reference", "history", "instruction", "\n"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 10**30, float("nan"), "", " ", "a", "é" * 50, "\x00", "[", "[]", "[1]"),
    *(
        "{}",
        '{"name": "f", "arguments": "{}"}',
        "[{'role': 'user'}]",
        '[{"role": "user", "content": "a"}]',
        "assistant",
    ),
    *(
        "user",
        "tool",
        "system",
        "human",
        "gpt",
        "function_call",
        "observation",
        "<think>",
        "</think>",
        "<think>a</think>",
    ),
    *(
        "<|im_start|>",
        "{{ 1 / 0 }}",
        [],
        {},
        [[]],
        [None],
        [1],
        [{}],
        {"a": None},
        {"role": "user"},
        [{"type": "text"}],
    ),
    *([{"type": "text", "text": "a"}], {"role": "assistant", "content": "a"}, [{"from": "gpt", "value": "a"}]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a row."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, held in inner for place in places(held, (*path, key)))]


def mutated(row: Row, chance: Random) -> Row:
    """A copy of a row in which one to three values are replaced, removed, repeated or renamed."""
    row = copy.deepcopy(row)
    for _ in range(chance.choice((1, 1, 2, 3))):
        row.setdefault("prompt", "a")
        *path, key = chance.choice([place for place in places(row) if place])
        holder: Any = row
        for step in path:
            holder = holder[step]
        match chance.randrange(5):
            case 0:
                holder[key] = copy.deepcopy(chance.choice(VALUES))
            case 1:
                del holder[key]
            case 2 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(chance.choice([*holder, *VALUES])))
            case 2 | 3 if isinstance(holder, dict):
                other = chance.choice(KEYS)
                holder[other] = holder.pop(key) if chance.random() < 0.5 else copy.deepcopy(chance.choice(VALUES))
            case _:
                row[chance.choice(KEYS)] = copy.deepcopy(chance.choice([*row.values(), *VALUES]))
    return row


@pytest.mark.parametrize("format", FORMATS)
def test_a_broken_row_is_a_sample_or_a_fault(format: DataFormat) -> None:
    chance = Random(format.value)
    calls = {"messages": [*EXPECTED.messages], "tools": [TOOL]}
    bases = [*GOOD_ROWS[format], *([calls] if format is DataFormat.MESSAGES else [])]
    good = faults = 0
    for _ in range(ROWS_PER_FORMAT):
        row = mutated(chance.choice(bases), chance)
        detect(row)
        try:
            sample = to_sample(row, format)
            without_reasoning(sample)
        except RowFault:
            faults += 1
            continue
        good += 1
        assert len(row_key(sample)) == len(prompt_key(sample)) == len(first_turn_key(sample)) == 16
        assert isinstance(sample.outline(), str)
        assert all(isinstance(name, str) for name in unused_in(row, used_columns(row, format)))
    assert min(good, faults) > ROWS_PER_FORMAT / 50, "both must occur"


def test_a_broken_conversation_is_encoded_or_a_fault(tiny_tokenizer: Any) -> None:
    chance = Random(0)
    encoder = Encoder(tiny_tokenizer, TrainOn.ASSISTANT, chat=True)
    encoded = 0
    for _ in range(500):
        try:
            sample: Sample = to_sample(mutated(GOOD_ROWS[DataFormat.MESSAGES][1], chance), DataFormat.MESSAGES)
            row = encoder.encode(sample)
        except RowFault:
            continue
        encoded += 1
        assert len(row.input_ids) == len(row.labels)
    assert encoded > 50


@pytest.mark.parametrize("name", KINDS)
def test_a_broken_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    chance = Random(name)
    rows = [json.loads(json.dumps(row)) for row in GOOD_ROWS[DataFormat.PROMPT_COMPLETION]] * 8
    whole = KINDS[name](rows)
    refused = 0
    for number in range(FILES_PER_KIND):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 20))):
            at = chance.randrange(len(content))
            match chance.randrange(4):
                case 0:
                    content[at] = chance.randrange(256)
                case 1:
                    del content[at:]
                    content += b"x"
                case 2:
                    content[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
                case _:
                    del content[at : at + chance.randrange(1, 40)]
                    content += b"\n"
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        try:
            source = find_source("train", str(folder))
            result = survey([source], DataFormat.AUTO, 0.1, 0.1)
            assert len([*good_samples([source], result.format)]) == len(result.refs)
        except BadInput as error:
            assert error.field == "spec.dataset.train"
            assert error.hint
            refused += 1
    assert refused, "some are broken beyond use"
