"""Raw text: all of it is learned, once and in pieces of the sequence length; scored by the loss alone."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from data_files import GOOD_ROWS
from rows import write_jsonl
from test_prepare import Pod, pod

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import detect
from hone_trainer.data.prepared import Prepared, load_prepared
from hone_trainer.data.raw_text import TextEncoder
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import survey
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.protocol.planfile import load_plan

__all__ = ["pod"]

TEXTS = [f"Chapter {i}. " + f"It works, said the clock of order {i}. " * (1 + i % 7 * 3) for i in range(60)]
ROWS = [{"text": text} for text in TEXTS]


def prepared_of(pod: Pod, config: dict[str, Any]) -> tuple[StepResult, Prepared]:
    code, result = pod.run(config)
    assert code == 0, result.verdict
    planned = load_plan(RunConfig.from_dict(config))
    assert planned is not None
    return result, load_prepared(planned.prepared)


def test_every_text_is_learned_as_a_whole_in_pieces_of_the_sequence_length(
    pod: Pod, make_config: Any, tiny_tokenizer: Any
) -> None:
    result, prepared = prepared_of(pod, make_config(ROWS, hyperparameters={"sequenceLength": 50}))
    assert result.dataset is not None
    assert (result.dataset.format, result.dataset.train_on) == ("Text", "All")
    assert (result.dataset.truncated_rows, result.dataset.trained_token_share) == (0, 1.0)
    assert (result.dataset.example_outline or "").startswith("text (")
    expected = []
    for text in TEXTS:
        ids = [*tiny_tokenizer(text)["input_ids"], tiny_tokenizer.eos_token_id]
        expected += [ids[start : start + 50] for start in range(0, len(ids), 50)]
    pieces = [piece for split in (prepared.train, prepared.validation, prepared.test) for piece in split["input_ids"]]
    assert sorted(pieces) == sorted(piece for piece in expected if len(piece) > 1)
    assert all(row["labels"] == row["input_ids"] and row["length"] == len(row["labels"]) for row in prepared.train)
    assert result.dataset.train_rows == len(prepared.train) > 60
    texts = {tuple(piece): place for place, piece in enumerate(expected)}
    places = [texts[tuple(piece)] for piece in prepared.train["input_ids"]]
    assert sum(after == before + 1 for before, after in itertools.pairwise(places)) < len(places) / 4


def test_pieces_have_2048_tokens_at_most_by_default(pod: Pod, make_config: Any) -> None:
    _, prepared = prepared_of(pod, make_config(ROWS))
    assert prepared.sequence_length == 256, "the model's context is shorter than 2048 tokens"
    assert max(prepared.train["length"]) <= 256


def test_a_text_of_a_single_token_teaches_nothing(tiny_tokenizer: Any) -> None:
    encoder = TextEncoder(tiny_tokenizer)
    assert len(encoder.encode(Sample(prompt="a")).input_ids) == 2
    tokenizer = type(tiny_tokenizer).from_pretrained(tiny_tokenizer.name_or_path, eos_token=None)
    with pytest.raises(RowFault, match="one token"):
        TextEncoder(tokenizer).encode(Sample(prompt="a"))


@pytest.mark.parametrize("objective", Objective)
def test_text_alone_is_detected_where_the_objective_learns_it(objective: Objective) -> None:
    formats = OBJECTIVES[objective].data.formats
    expected = DataFormat.TEXT if DataFormat.TEXT in formats else None
    assert detect(GOOD_ROWS[DataFormat.TEXT][0], formats) is expected
    assert detect({"text": "It broke.", "label": "bad"}, formats) is DataFormat.TEXT_LABEL


@pytest.mark.parametrize(
    "objective", [each for each in Objective if DataFormat.TEXT not in OBJECTIVES[each].data.formats]
)
def test_other_objectives_refuse_raw_text_by_name(pod: Pod, make_config: Any, objective: Objective) -> None:
    sections: dict[str, Any] = {"objective": objective.value, "data": {"format": "Text"}}
    if OBJECTIVES[objective].needs.reward:
        sections["reward"] = {"functions": [{"name": "ExactMatch"}]}
    config = make_config(ROWS, **sections)
    if OBJECTIVES[objective].needs.teacher:
        config["paths"]["teacher"] = config["paths"]["model"]
    code, result = pod.run(config)
    assert code == 64
    assert result.verdict is not None
    assert f"spec.dataset.format: is not supported with objective {objective}" in result.verdict.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trainOn": "Assistant", "format": "Text"}, "spec.dataset.trainOn: cannot be Assistant or Completion"),
        ({"trainOn": "Completion"}, "spec.dataset.trainOn: is Completion, but raw text (format Text) has no answers"),
        ({"trainOn": "Assistant"}, "spec.dataset.trainOn: is Assistant, but some rows are plain text"),
        ({"systemPrompt": "Be brief."}, "spec.dataset.systemPrompt: is set, but some rows are plain text"),
    ],
)
def test_settings_of_answers_are_refused(pod: Pod, make_config: Any, data: dict[str, Any], message: str) -> None:
    code, result = pod.run(make_config(ROWS, data=data))
    assert code == 64
    assert result.verdict is not None
    assert message in result.verdict.message


def test_ratings_next_to_a_text_are_not_ignored(pod: Pod, make_config: Any) -> None:
    rows = [{**row, "kto_tag": False} for row in ROWS]
    code, result = pod.run(make_config(rows, data={"format": "Text"}))
    assert code == 64
    assert result.verdict is not None
    assert "the row is a rated answer" in result.verdict.message


@pytest.mark.train
def test_texts_are_scored_by_their_loss_alone(tmp_path: Path, pod: Pod, make_config: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hone_trainer.scores.compare import compare_losses
    from hone_trainer.scores.rows import text_rows

    config = make_config(ROWS)
    _, prepared = prepared_of(pod, config)
    path = config["paths"]["model"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    figures = text_rows(model, tokenizer, prepared.test, 0, "base")
    assert len(figures.losses) == len(figures.answers) == len(prepared.test) > 0
    assert all(loss > 3 for loss in figures.losses)
    evaluation, notes, _ = compare_losses(figures, figures)
    assert [(score.metric, score.samples) for score in evaluation.scores] == [("loss", len(prepared.test))]
    assert "loss is the only metric" in notes[0]


def test_text_alone_is_no_row_of_another_objective(tmp_path: Path) -> None:
    source = find_source("train", str(write_jsonl(tmp_path / "rows.jsonl", ROWS)))
    with pytest.raises(BadInput) as error:
        survey([source], DataFormat.AUTO, 0.1, 0.1, OBJECTIVES[Objective.DPO].data.formats)
    assert "the rows have `text`, expected `chosen` and `rejected`" in error.value.message
    assert "set spec.objective to SFT to learn all of it" in (error.value.hint or "")
