"""The tokens at which an answer ends: what is learned is a stop of the artifact, and scoring stops there."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hone_trainer.models.stops import add_stops, stop_as_served, stop_warnings, stops_of
from hone_trainer.scores.compare import endless
from hone_trainer.scores.rows import RowScores

TEXT_END, TURN_END, OTHER = 0, 2, 7


@pytest.fixture
def tokenizer(tiny_tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(TEXT_END)
    return tokenizer


def model(tmp_path: Path, generation: Any = None, config: Any = None) -> Path:
    for name, value in (("generation_config.json", generation), ("config.json", config)):
        if value is not None:
            (tmp_path / name).write_text(json.dumps({"eos_token_id": value, "temperature": 0.6}))
    return tmp_path


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        (None, None, {TEXT_END}),
        (TURN_END, OTHER, {TEXT_END, TURN_END}),
        ([TURN_END, OTHER], None, {TEXT_END, TURN_END, OTHER}),
        (None, OTHER, {TEXT_END, OTHER}),
    ],
)
def test_a_server_stops_at_the_tokenizers_end_and_those_of_the_configuration(
    tokenizer: Any, tmp_path: Path, generation: Any, config: Any, stops: set[int]
) -> None:
    assert stops_of(model(tmp_path, generation, config), tokenizer) == stops


def test_what_trained_answers_end_with_becomes_a_stop_of_the_artifact_and_is_warned_of(
    tokenizer: Any, tmp_path: Path
) -> None:
    base, artifact = tmp_path / "base", tmp_path / "artifact"
    base.mkdir()
    artifact.mkdir()
    for directory in (base, artifact):
        model(directory, OTHER)
    add_stops(artifact, base, tokenizer, [TURN_END])
    written = json.loads((artifact / "generation_config.json").read_text())
    assert written == {"eos_token_id": [TEXT_END, TURN_END, OTHER], "temperature": 0.6}
    (sentence,) = stop_warnings(base, tokenizer, [TURN_END, OTHER])
    assert sentence.startswith("Answers end with <|im_end|>, at which the model does not stop")
    assert "add 2 there" in sentence
    loaded = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=OTHER))
    stop_as_served(cast(Any, loaded), artifact)
    assert loaded.generation_config.eos_token_id == [TEXT_END, TURN_END, OTHER]


def test_nothing_is_written_or_said_where_the_model_stops_anyway(tokenizer: Any, tmp_path: Path) -> None:
    base, artifact = model(tmp_path, TURN_END), tmp_path / "artifact"
    artifact.mkdir()
    add_stops(artifact, base, tokenizer, [TURN_END, TEXT_END])
    assert not [*artifact.iterdir()]
    assert not stop_warnings(base, tokenizer, [TURN_END, TEXT_END])


def test_answers_that_never_end_are_counted() -> None:
    tuned = RowScores([], ["a", "b", "c"], [True, False, True])
    assert endless(RowScores([], ["a", "b", "c"], [False, False, True]), tuned, 64) == [
        "2 of 3 answers of the tuned model (1 of the base model) did not end within 64 tokens."
    ]
    assert not endless(tuned, RowScores([], ["a"]), 64)
