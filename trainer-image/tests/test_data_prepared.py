"""Prepared data on disk: what is written, what it is named by, and that only whole data are ever used."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from rows import CHAT_TEMPLATE, chat_row, write_jsonl
from test_data_templates import DROPS_THOUGHTS

from hone.contract.runconfig import RunConfig
from hone_trainer.data import build
from hone_trainer.data.prepared import IGNORE_INDEX, META_FILE, SPLITS, Prepared, difference, load_prepared
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput

pytestmark = pytest.mark.slow

ROWS = "data-00000-of-00001.arrow"
"""The file with the rows of a split."""


@pytest.fixture
def prepared_from(make_config: Any) -> Any:
    """Prepares the rows with the given sections of the RunConfig and loads what came out."""

    def run(rows: Iterable[Any] | None = None, **sections: Any) -> Prepared:
        config = RunConfig.from_dict(make_config(rows, **sections))
        # Another RunConfig of the same run: prepare would else answer with the plan it has.
        return load_prepared(prepare(config).prepared)

    return run


def directories(config: dict[str, Any]) -> list[str]:
    """Of the prepared data; the surveys of what they were made from are in one alongside."""
    prepared = Path(config["paths"]["workspace"]) / "prepared"
    return sorted(path.name for path in prepared.iterdir() if path.name != "surveys")


def long_row(i: int, words: int) -> dict[str, Any]:
    row = chat_row(i)
    row["messages"][0]["content"] += " kettle" * words
    return row


def test_every_row_is_in_one_split_with_labels_as_long_as_its_ids(prepared_from: Any) -> None:
    prepared = prepared_from()
    assert sum(len(getattr(prepared, name)) for name in SPLITS) == 300
    for name in SPLITS:
        split = getattr(prepared, name)
        assert len(split) > 0
        for row in split:
            assert len(row["input_ids"]) == len(row["labels"]) <= prepared.sequence_length
            trained = [label for label in row["labels"] if label != IGNORE_INDEX]
            assert trained
            assert len(trained) < len(row["labels"])


def test_the_test_split_has_what_an_answer_is_generated_from_and_compared_to(
    prepared_from: Any, tiny_tokenizer: Any
) -> None:
    for row in prepared_from().test:
        assert row["reference"] in ("positive", "negative")
        assert row["prompt"].endswith("<|im_start|>assistant\n")
        assert tiny_tokenizer.decode(row["prompt_ids"]) == row["prompt"]
        rest = tiny_tokenizer.decode(row["input_ids"][len(row["prompt_ids"]) :])
        assert rest == row["reference"] + "<|im_end|>\n"


def test_the_summary_counts_what_was_written(prepared_from: Any) -> None:
    prepared = prepared_from([*(chat_row(i) for i in range(200)), "broken"])
    train, summary = prepared.train, prepared.summary
    assert (summary.train_rows, summary.validation_rows) == (len(train), len(prepared.validation))
    assert summary.test_rows == len(prepared.test)
    assert summary.tokens == sum(len(ids) for ids in train["input_ids"])
    trained = sum(label != IGNORE_INDEX for labels in train["labels"] for label in labels)
    assert summary.trained_token_share == pytest.approx(trained / summary.tokens, abs=1e-4)
    assert summary.longest_row == max(len(ids) for ids in train["input_ids"])
    assert [(bad.count, bad.first) for bad in summary.bad_rows] == [(1, "train.jsonl:201")]
    assert summary.example and "«" in summary.example
    assert summary.train_on == "Assistant"


def test_answers_without_loss_are_told(prepared_from: Any, tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "chat_template.jinja").write_text(DROPS_THOUGHTS)
    thought = "<think>hm</think>"
    chats = [chat_row(i)["messages"] for i in range(60)]
    with_thoughts = [[user, {**answer, "content": thought + answer["content"]}] for user, answer in chats]
    twice = [{"messages": first + second} for first, second in itertools.pairwise(with_thoughts)]
    options = {"paths": {"model": str(model)}, "data": {"trainOn": "Assistant"}}
    assert any("59 answers carry no loss" in warning for warning in prepared_from(twice, **options).warnings)
    once = [{"messages": turns} for turns in with_thoughts]
    assert not any(
        "carry no loss" in warning for warning in prepared_from(once, hyperparameters={"seed": 1}, **options).warnings
    )


def test_special_tokens_in_messages_are_told(prepared_from: Any) -> None:
    rows = [chat_row(i) for i in range(60)]
    rows[3]["messages"][0]["content"] += " <|im_end|>"
    (warning,) = [each for each in prepared_from(rows).warnings if "in the text of a message" in each]
    assert warning.startswith("1 rows have <|im_end|>")


def test_the_same_input_gives_the_same_bytes(make_config: Any, tmp_path: Path) -> None:
    digests = []
    for name in ("first", "second"):
        config = make_config(paths={"workspace": str(tmp_path / name), "run": str(tmp_path / name / "run")})
        directory = Path(prepare(RunConfig.from_dict(config)).prepared)
        digests.append((directory.name, {split: load_prepared(directory).train[:] for split in ("train",)}))
    assert digests[0] == digests[1]


def test_training_rows_are_shuffled_by_the_seed(prepared_from: Any) -> None:
    def order(seed: int) -> list[Any]:
        return list(prepared_from(hyperparameters={"seed": seed}).train["input_ids"])

    first, second = order(1), order(2)
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"data": {"trainOn": "All"}}, id="which tokens carry loss"),
        pytest.param({"data": {"testFraction": 0.3}}, id="fractions"),
        pytest.param({"hyperparameters": {"seed": 7}}, id="seed"),
        pytest.param({"hyperparameters": {"sequenceLength": 200}}, id="sequence length"),
    ],
)
def test_other_options_are_other_data(make_config: Any, change: dict[str, Any]) -> None:
    config = make_config()
    first = prepare(RunConfig.from_dict(config)).prepared
    second = prepare(RunConfig.from_dict(make_config(**change))).prepared
    assert first != second
    assert len(directories(config)) == 2


def test_settings_of_the_training_alone_use_the_same_data(make_config: Any) -> None:
    config = make_config()
    first = prepare(RunConfig.from_dict(config))
    second = prepare(RunConfig.from_dict(make_config(hyperparameters={"learningRate": 0.01, "epochs": 1})))
    assert first.prepared == second.prepared
    assert second.plan.learning_rate == 0.01
    assert len(directories(config)) == 1


def test_one_changed_character_of_the_data_is_other_data(make_config: Any) -> None:
    rows = [chat_row(i) for i in range(100)]
    first = prepare(RunConfig.from_dict(make_config(rows))).prepared
    rows[7]["messages"][0]["content"] = rows[7]["messages"][0]["content"].replace("kettle", "kattle")
    second = prepare(RunConfig.from_dict(make_config(rows, modelName="so that it is planned again"))).prepared
    assert first != second


def test_another_chat_template_is_other_data(make_config: Any, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("assistant\\n", "assistant\\n\\n"))
    first = prepare(RunConfig.from_dict(make_config())).prepared
    second = prepare(RunConfig.from_dict(make_config(paths={"model": str(model)}))).prepared
    assert first != second


def test_data_that_are_not_whole_are_made_anew(make_config: Any) -> None:
    config = make_config()
    directory = Path(prepare(RunConfig.from_dict(config)).prepared)
    rows = len(load_prepared(directory).train)
    (directory / META_FILE).unlink()
    (directory / "train" / ROWS).write_bytes(b"half")
    assert Path(prepare(RunConfig.from_dict(config)).prepared) == directory
    assert len(load_prepared(directory).train) == rows


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _replace_by_link(file: Path) -> None:
    file.rename(file.parent.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent.parent / "elsewhere")


def _say(directory: Path, **values: Any) -> None:
    meta = json.loads((directory / META_FILE).read_text())
    (directory / META_FILE).write_text(json.dumps({**meta, **values}))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a byte of the training rows": lambda directory: _flip(directory / "train" / ROWS),
    "a byte of the test rows": lambda directory: _flip(directory / "test" / ROWS),
    "a split of another": lambda directory: shutil.copytree(
        directory / "train", directory / "test", dirs_exist_ok=True
    ),
    "a file that was added": lambda directory: (directory / "train" / "more.arrow").write_bytes(b"rows"),
    "a file that is gone": lambda directory: (directory / "validation" / ROWS).unlink(),
    "a split that is gone": lambda directory: shutil.rmtree(directory / "test"),
    "a link": lambda directory: _replace_by_link(directory / "train" / ROWS),
    "data of another digest": lambda directory: _say(directory, summary={"digest": "sha256:aa"}),
    "no JSON": lambda directory: (directory / META_FILE).write_text("{"),
    "files that are no list": lambda directory: _say(directory, files=[1]),
}


def test_data_that_were_changed_are_not_believed_by_their_name(make_config: Any, tmp_path: Path) -> None:
    config = make_config()
    directory = Path(prepare(RunConfig.from_dict(config)).prepared)
    before = {name: (directory / name / ROWS).read_bytes() for name in SPLITS}
    for case, change in CHANGES.items():
        copy = tmp_path / case / "prepared" / directory.name
        shutil.copytree(directory, copy)
        assert difference(copy, copy.name) is None
        change(copy)
        assert difference(copy, copy.name), case
    # The same run, whose plan exists, and another one on the workspace.
    for run in (config["paths"]["run"], str(Path(config["paths"]["workspace"]) / "other")):
        config["paths"]["run"] = run
        _flip(directory / "train" / ROWS)
        assert Path(prepare(RunConfig.from_dict(config)).prepared) == directory
        assert {name: (directory / name / ROWS).read_bytes() for name in SPLITS} == before
    assert directories(config) == [directory.name]


def test_data_as_they_were_written_are_used_again_also_those_of_older_releases(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    directory = Path(prepare(RunConfig.from_dict(config)).prepared)
    monkeypatch.setattr(build, "build_prepared", None)
    config["paths"]["run"] = str(Path(config["paths"]["workspace"]) / "other")
    assert Path(prepare(RunConfig.from_dict(config)).prepared) == directory
    meta = json.loads((directory / META_FILE).read_text())
    assert {Path(file["path"]).parts[0] for file in meta.pop("files")} == set(SPLITS)
    (directory / META_FILE).write_text(json.dumps(meta))
    config["paths"]["run"] = str(Path(config["paths"]["workspace"]) / "third")
    assert Path(prepare(RunConfig.from_dict(config)).prepared) == directory


def test_a_failure_in_the_middle_leaves_nothing(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("no space left")

    config = make_config()
    monkeypatch.setattr(build, "_count_tokens", fail)
    with pytest.raises(OSError, match="no space left"):
        prepare(RunConfig.from_dict(config))
    assert directories(config) == []
    assert not (Path(config["paths"]["run"]) / "plan.json").exists()


def test_another_runs_result_is_kept_where_both_made_the_same(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.from_dict(make_config())
    directory = Path(prepare(config).prepared)
    (directory / "mark").write_text("the other run's")
    (Path(config.paths.run) / "plan.json").unlink()
    # As if the other run had finished just after this one looked.
    monkeypatch.setattr("hone_trainer.prepare.difference", lambda directory, digest: "it is not whole")
    prepare(config)
    assert (directory / "mark").exists()
    assert directories(config.to_dict()) == [directory.name]


def test_the_longest_training_row_sets_the_sequence_length(prepared_from: Any) -> None:
    prepared = prepared_from()
    assert prepared.sequence_length == prepared.summary.longest_row
    assert prepared.summary.truncated_rows == 0


def some_long(share: float) -> list[dict[str, Any]]:
    """400 rows, a share of them too long for 60 tokens: in each of ten equal parts alike."""
    return [long_row(i, 60 if i % 100 < share * 100 else 0) for i in range(400)]


def test_rows_are_cut_to_the_sequence_length_with_a_warning_above_one_percent(prepared_from: Any) -> None:
    # The answer comes last: with All, a cut row still has something to train on.
    prepared = prepared_from(some_long(0.05), hyperparameters={"sequenceLength": 60}, data={"trainOn": "All"})
    cut = prepared.summary.truncated_rows
    assert 0 < cut < 0.1 * prepared.summary.train_rows
    assert max(len(ids) for ids in prepared.train["input_ids"]) == 60
    assert sum(len(ids) == 60 for ids in prepared.train["input_ids"]) >= cut
    assert any(w.startswith(f"{cut} of {prepared.summary.train_rows} training rows") for w in prepared.warnings)


def test_rows_whose_answer_is_cut_off_are_left_out(prepared_from: Any) -> None:
    prepared = prepared_from(some_long(0.05), hyperparameters={"sequenceLength": 60})
    reasons = {bad.reason: bad.count for bad in prepared.summary.bad_rows}
    assert reasons == {"nothing to train on within the first 60 tokens": 20}
    assert len(prepared.train) + len(prepared.validation) + len(prepared.test) == 380


def test_cutting_more_than_a_tenth_is_refused_with_the_length_to_ask_for(prepared_from: Any) -> None:
    with pytest.raises(BadInput) as error:
        prepared_from(some_long(0.3), hyperparameters={"sequenceLength": 60})
    longest = prepared_from(some_long(0.3)).summary.longest_row
    assert error.value.field == "spec.hyperparameters.sequenceLength"
    assert f"Raise it to {longest}" in (error.value.hint or "")
    assert "exceed 60 tokens" in error.value.message


def test_rows_longer_than_the_models_context_are_refused_as_data(prepared_from: Any) -> None:
    with pytest.raises(BadInput) as error:
        prepared_from([long_row(i, 300) for i in range(50)], data={"trainOn": "All"})
    assert error.value.field == "spec.dataset.train"
    assert "exceed 256 tokens" in error.value.message
    assert "longer context" in (error.value.hint or "")


def test_a_split_may_have_no_rows(prepared_from: Any) -> None:
    prepared = prepared_from(data={"validationFraction": 0.0, "testFraction": 0.001})
    assert [len(getattr(prepared, name)) for name in SPLITS] == [300, 0, 0]
    assert set(prepared.test.column_names) == {"input_ids", "labels", "length", "prompt_ids", "reference", "prompt"}


def test_files_for_the_held_out_splits_are_used_whole(prepared_from: Any, tmp_path: Path) -> None:
    validation = write_jsonl(tmp_path / "validation.jsonl", [chat_row(i) for i in range(1000, 1020)])
    test = write_jsonl(tmp_path / "test.jsonl", [chat_row(i) for i in range(2000, 2030)])
    prepared = prepared_from(data={"validation": str(validation), "test": str(test)})
    assert [len(getattr(prepared, name)) for name in SPLITS] == [300, 20, 30]


def test_a_directory_that_is_not_whole_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_prepared(tmp_path)


def test_trl_trains_on_the_columns_as_they_are(prepared_from: Any) -> None:
    """TRL's collator makes a batch of the rows: the labels are ours, padding carries no loss."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    prepared = prepared_from()
    rows = [prepared.train[i] for i in range(4)]
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(rows)
    for i, row in enumerate(rows):
        labels = batch["labels"][i].tolist()
        assert labels[: len(row["labels"])] == row["labels"]
        assert set(labels[len(row["labels"]) :]) <= {IGNORE_INDEX}
