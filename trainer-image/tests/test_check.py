"""The check without a cluster: what it prints, its exit codes, and that it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rows import chat_row, write_jsonl

from hone.contract.plan import DatasetSummary, Plan
from hone.contract.runconfig import DataPaths
from hone_trainer import check, prepare
from hone_trainer.protocol.results import TERMINATION_LOG_ENV
from hone_trainer.protocol.runconfig import RUN_CONFIG_ENV

NO_OPTIONS = {
    "train": "DATA",
    "columns": "--column",
    "roles": "--role",
    "sources": "--source",
    "mounts": "volumes of pods",
    "balance": "changes no row",
    "showExample": "the example is always shown",
    "minSamples": "only warns",
    "onScarceData": "only warns",
}
"""Fields of the data that no entry of OPTIONS sets, with what does, or why nothing does."""


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the command writes its temporary files."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    return directory


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "hone_trainer.check", *map(str, arguments)]


def run(temporary: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=300)


def rows(path: Path) -> Path:
    """300 rows, of which one is bad and ten have a key that nothing reads."""
    good = [chat_row(i) | ({"id": i} if i < 10 else {}) for i in range(299)]
    return write_jsonl(path, [*good, "no JSON"])


@pytest.mark.train
def test_it_prints_counts_findings_and_a_row_with_what_is_learned(
    tmp_path: Path, temporary: Path, tiny_model: Path
) -> None:
    result = run(temporary, rows(tmp_path / "rows.jsonl"), "--model", tiny_model)
    assert result.returncode == 0, result.stderr
    for text in (
        "format: Messages",
        "1 × not JSON: each line must be one JSON object (first: rows.jsonl:300)",
        "`id`: in 10 rows",
        "Little data",
        "assistant\n  «positive<|im_end|>»",
        "ACCEPTED",
    ):
        assert text in result.stdout
    assert list(temporary.iterdir()) == []


@pytest.mark.train
def test_it_says_what_the_status_of_a_job_says(
    tmp_path: Path, tiny_model: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    train, term = rows(tmp_path / "rows.jsonl"), tmp_path / "term"
    config = make_config(data={"train": str(train), "minSamples": 500, "testFraction": 0.2, "showExample": True})
    (tmp_path / "run.json").write_text(json.dumps(config))
    monkeypatch.setenv(RUN_CONFIG_ENV, str(tmp_path / "run.json"))
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(term))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert prepare.main() == 0
        capfd.readouterr()
        assert check.main([str(train), "--model", str(tiny_model), "--test-fraction", "0.2", "--json"]) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    # The step's log is before it: in this process, pytest has replaced standard output.
    status, printed = json.loads(term.read_text()), json.loads(capfd.readouterr().out.splitlines()[-1])
    assert DatasetSummary.from_dict(printed["dataset"]) == DatasetSummary.from_dict(status["dataset"])
    unmeasured = {"checkpoint_seconds": None, "checkpoint_min_seconds": None, "reasons": {}, "memory": None}
    plans = [Plan.from_dict(plan).model_copy(update=unmeasured) for plan in (printed["plan"], status["plan"])]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (['{"story": "a"}'] * 20, "spec.dataset.train: a column is missing: the rows have `story`"),
        (["no JSON"] * 10 + [json.dumps(chat_row(1))] * 20, "10 of 30 rows cannot be used"),
    ],
)
def test_what_a_job_would_refuse_ends_with_1_and_what_to_do(
    content: list[str], words: str, tmp_path: Path, temporary: Path
) -> None:
    result = run(temporary, write_jsonl(tmp_path / "rows.jsonl", content), "--model", tmp_path)
    assert result.returncode == 1, result.stderr
    assert words in result.stdout
    assert "What to do: " in result.stdout
    assert "here it is DATA." in result.stdout
    assert list(temporary.iterdir()) == []


def test_a_missing_reward_is_refused_by_the_name_of_its_option(tmp_path: Path, temporary: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"{i}?"} for i in range(20)])
    result = run(temporary, data, "--model", tmp_path, "--objective", "GRPO")
    assert result.returncode == 1, result.stderr
    assert "here it is --reward." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: --model"),
        (["--model", "."], "name the training rows: either DATA, or --source"),
        (["rows.jsonl", "--model", ".", "--source", "a=b"], "name the training rows: either DATA, or --source"),
        (["rows.jsonl", "--model", "nowhere"], "--model: nowhere is no directory"),
        (["rows.jsonl", "--model", ".", "--column", "prompt"], "--column: write NAME=YOURS"),
        (["rows.jsonl", "--model", ".", "--role", "agent=bot"], "--role: bot is no role; the roles are system"),
        (["--model", ".", "--source", "a=b", "--source", "a=c"], "give each source a name of its own"),
        (["--model", ".", "--source", "a=b", "color=red"], "--source: write NAME=PATH, then perhaps format="),
        (["--model", ".", "--source", "a=b", "weight=heavy"], "--source a: one of its values is wrong: weight=heavy"),
        (["--model", ".", "--source", "a=b", "role.x=bot"], "--source: bot is no role"),
        (["rows.jsonl", "--model", ".", "--objective", "Magic"], "invalid choice: 'Magic'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], words: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        check.main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_the_help_names_every_option(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        check.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert [option.flag for option in check.OPTIONS if option.flag not in text] == []
    assert "Exit code" in text


def test_every_field_of_the_data_has_an_option() -> None:
    fields = {field.alias for field in DataPaths.model_fields.values()}
    options = {key for section, key in (option.place for option in check.OPTIONS) if section == "data"}
    assert fields == options | set(NO_OPTIONS)


def test_it_leaves_nothing_behind_when_it_is_stopped(tmp_path: Path, temporary: Path) -> None:
    data = tmp_path / "rows.jsonl"
    write_jsonl(data, (chat_row(i) for i in range(9999)))
    process = subprocess.Popen(
        command(data, "--model", tmp_path),
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(temporary.glob("hone-check-*/log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == check.INTERRUPTED, error
    assert list(temporary.iterdir()) == []


@pytest.mark.train
def test_several_sources_are_mixed_as_a_job_does_it(tmp_path: Path, temporary: Path, tiny_model: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", (chat_row(i) for i in range(40)))
    dialogs = [{"dialog": [{"role": r, "content": f"{r} {i}"} for r in ("customer", "assistant")]} for i in range(60)]
    write_jsonl(tmp_path / "b.jsonl", dialogs)
    second = (f"chats={tmp_path}/b.jsonl", "maxRows=20", "column.messages=dialog", "role.customer=user")
    sources = ("--source", f"support={tmp_path}/a.jsonl", "weight=2", "--source", *second)
    result = run(temporary, *sources, "--model", tiny_model)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "support: 40 rows, 0 left out, " in result.stdout
    assert "chats: 20 rows, 0 left out, " in result.stdout
    missing = run(temporary, "--source", f"a={tmp_path}/c.jsonl", "--model", tiny_model)
    assert missing.returncode == 1
    assert "spec.dataset.train.sources[0] is the field of a FineTuneJob; here it is --source." in missing.stdout
