"""Benchmarks: their rows are read and checked in prepare, before GPUs are queued."""

import json
from pathlib import Path
from typing import Any

import pytest

from hone.contract.benchmarks import Benchmark
from hone.contract.objects import ConfigMapKey
from hone.contract.runconfig import RunConfig
from hone_trainer.data.benchmarks import check, read
from hone_trainer.protocol.errors import BadInput

GOOD = {"prompt": "1+1=", "completion": "2"}
CHAT = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
NAME, FILE = "sums", "rows.jsonl"


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The benchmark's volume."""
    monkeypatch.setattr("hone.contract.benchmarks.DIRECTORY", str(tmp_path))
    (tmp_path / NAME).mkdir()
    return tmp_path / NAME


def benchmark(**fields: Any) -> Benchmark:
    return Benchmark(name=NAME, config_map=ConfigMapKey(name="questions", key=FILE), **fields)


def config(*benchmarks: Benchmark) -> RunConfig:
    evaluation = {"benchmarks": [each.to_dict() for each in benchmarks]}
    data = {"train": "/none", "systemPrompt": "Be brief."}
    run = {"job": {"namespace": "a", "name": "b", "uid": "c"}, "modelName": "m", "data": data, "evaluation": evaluation}
    return RunConfig.from_dict(run)


def write(volume: Path, *rows: Any) -> None:
    (volume / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_are_chosen_alike_every_time_and_have_the_systems_words(volume: Path) -> None:
    write(volume, *[{**CHAT, "id": number} for number in range(40)])
    few = benchmark(max_samples=7)
    questions = read(config(few), few, 0)
    assert len(questions.samples) == 7 and questions.samples == read(config(few), few, 0).samples
    assert questions.samples[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert questions.train_on == "Assistant"


def test_columns_of_other_names_are_read(volume: Path) -> None:
    write(volume, {"question": "1+1=", "answer": "2"})
    named = benchmark(columns={"prompt": "question", "completion": "answer"})
    (sample,) = read(config(named), named, 0).samples
    assert (sample.prompt, sample.completion) == ("1+1=", "2")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has no rows"),
        ([{"text": "no question"}], "a column is missing"),
        ([GOOD, {"prompt": "1+2="}, {"prompt": ""}], "2 of 3 rows cannot be used"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_with_their_field(
    rows: list[dict[str, str]], words: str, volume: Path
) -> None:
    write(volume, *rows)
    with pytest.raises(BadInput) as refused:
        check(config(benchmark()))
    assert refused.value.field == "spec.evaluation.benchmarks[0]"
    assert words in refused.value.message and refused.value.hint


def test_a_link_out_of_the_volume_is_refused(volume: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(json.dumps(GOOD) + "\n")
    (volume / FILE).symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(BadInput) as refused:
        check(config(benchmark()))
    assert refused.value.field == "spec.evaluation.benchmarks[0]"
