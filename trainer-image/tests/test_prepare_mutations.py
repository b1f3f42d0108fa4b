"""Mutated rows and files, through what reads and encodes them, and through the whole step: accepted, or refused by
field and remedy, within bounds."""

import json
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from data_files import GOOD_ROWS, KINDS, Row
from test_data_mutations import mutated

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.results import StepResult
from hone.contract.settings import DataFormat
from hone_trainer import prepare
from hone_trainer.data.checks import check_format, choose_train_on
from hone_trainer.data.classes import find_classes
from hone_trainer.data.encoders import EncoderOptions
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import good_samples, survey
from hone_trainer.objectives import components
from hone_trainer.protocol import host, limits
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.protocol.results import TERMINATION_LOG_ENV
from hone_trainer.protocol.runconfig import RUN_CONFIG_ENV

ROWS = 40
SECONDS, MEMORY = 120.0, 3 << 30
"""How long one may take on a loaded machine, and how much memory, that of the libraries included."""
FEW_SECONDS = 20.0
"""Of CPU time, for the rows alone."""
VARIED = ("content", "value", "prompt", "instruction", "text", "question")
FORMATS = [format for format in DataFormat if format is not DataFormat.AUTO]
NAMES = [*KINDS, "rows.txt"]
SLICES, PER_SLICE = 20, 100
"""Of the soak: 2,000 files of each kind."""


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(host, "memory_limit", lambda: int(MEMORY / limits.MEMORY_SHARE))
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def varied(value: Any, number: int, key: str = "") -> Any:
    """A row that differs from others by a number in each of its texts."""
    if isinstance(value, dict):
        return {name: varied(inner, number, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [varied(inner, number, key) for inner in value]
    return f"{value} {number}" if isinstance(value, str) and key in VARIED else value


def learns(format: DataFormat) -> Objective:
    """An objective for the format that needs no other model."""
    fits = (
        each for each in Objective if format in OBJECTIVES[each].data.formats and not OBJECTIVES[each].needs.teacher
    )
    return next(fits)


def broken_file(name: str, format: DataFormat, chance: Random) -> bytes:
    """A file in which some rows are mutated, and perhaps some bytes."""
    rows: list[Row] = [varied(GOOD_ROWS[format][i % 2], i) for i in range(ROWS)]
    for i in chance.sample(range(ROWS), chance.choice((0, 1, 1, 3, ROWS))):
        rows[i] = mutated(rows[i], chance)
    if name == "rows.txt":
        content = bytearray("\n\n".join(json.dumps(row) for row in rows).encode())
    else:
        try:
            content = bytearray(KINDS[name](rows))
        except Exception:  # Arrow has no column of several types.
            content = bytearray(KINDS[name]([varied(GOOD_ROWS[format][i % 2], i) for i in range(ROWS)]))
    for _ in range(chance.choice((0, 0, 1, 2, 20))):
        at = chance.randrange(len(content))
        match chance.randrange(3):
            case 0:
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                del content[at:]
                content += b"\n"
            case _:
                del content[at : at + chance.randrange(1, 40)]
                content += b"x"
    return bytes(content)


def outcome(config: dict[str, Any], directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, StepResult]:
    """Exit code and result of the step in a process of its own, with its limits."""
    (directory / "run.json").write_text(json.dumps(config))
    monkeypatch.setenv(RUN_CONFIG_ENV, str(directory / "run.json"))
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(directory / "result.json"))
    code = limits.supervised(prepare.STEP, lambda: prepare.main(measures_workspace=False), SECONDS)
    return code, StepResult.from_dict(json.loads((directory / "result.json").read_bytes()))


def check(name: str, seeds: range, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    codes = Counter[int]()
    for seed in seeds:
        chance = Random(f"{name} {seed}")
        format = FORMATS[(seed + NAMES.index(name)) % len(FORMATS)]
        directory = tmp_path / str(seed)
        directory.mkdir()
        (directory / name).write_bytes(broken_file(name, format, chance))
        objective = learns(format)
        sections: dict[str, Any] = {"objective": objective.value, "data": {"train": str(directory / name)}}
        if OBJECTIVES[objective].needs.reward:
            sections["reward"] = {"functions": [{"name": "ExactMatch"}]}
        paths = {place: str(directory / place) for place in ("workspace", "run", "output")}
        code, result = outcome(make_config([], **sections, paths=paths), directory, monkeypatch)
        codes[code] += 1
        if code == 0:
            assert result.dataset is not None
            assert result.dataset.train_rows > 0
            assert result.plan is not None
            continue
        assert result.verdict is not None
        assert (code, result.verdict.failure_class) == (64, "BadInput"), (seed, format, result.verdict)
        assert result.verdict.message.startswith("spec."), (seed, result.verdict.message)
        assert result.verdict.hint, (seed, result.verdict.message)
    return codes


@pytest.mark.train
def test_a_mutated_file_of_each_kind_is_accepted_or_refused_with_words(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = Counter[int]()
    for name in NAMES:
        directory = tmp_path / name
        directory.mkdir()
        codes += check(name, range(1), make_config, directory, monkeypatch)
    assert min(codes[0], codes[64]) > 0, "both must occur"


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.parametrize("name", NAMES)
def test_no_mutated_file_breaks_prepare(
    name: str, part: int, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, range(1 + part * PER_SLICE, 1 + (part + 1) * PER_SLICE), make_config, tmp_path, monkeypatch)


def work_on(name: str, seed: int, folder: Path, tokenizer: Any) -> str:
    """The rows of a mutated file, read, checked and encoded; returns what became of them."""
    chance = Random(f"{name} {seed}")
    format = FORMATS[(seed + NAMES.index(name)) % len(FORMATS)]
    (folder / name).write_bytes(broken_file(name, format, chance))
    objective = learns(format)
    facts, begin = OBJECTIVES[objective], time.process_time()
    try:
        source = find_source("train", str(folder / name))
        rows = survey([source], DataFormat.AUTO, 0.1, 0.1, facts.data.formats, generated=facts.generates)
        for each in rows.formats:
            check_format(objective, each)
        options = EncoderOptions(
            rows.chat,
            choose_train_on(None, rows) if facts.data.marks_tokens else None,
            find_classes(rows.refs) if facts.data.labels else None,
            room=32,
            limit=4096,
            raw_text=rows.format is DataFormat.TEXT,
        )
        encoder = components(objective).encoder(tokenizer, options)
        counts = Counter[str]()
        for _, sample in good_samples(list(rows.sources), rows.format):
            try:
                encoder.encode(sample).columns()
                counts["encoded"] += 1
            except RowFault:
                counts["faults"] += 1
    except BadInput as error:
        assert error.field.startswith("spec."), (name, seed)
        assert error.hint, (name, seed)
        return "refused"
    assert time.process_time() - begin < FEW_SECONDS, (name, seed)
    return "encoded" if counts["encoded"] else "no row"


def test_mutated_files_are_encoded_or_refused(tiny_tokenizer: Any, tmp_path: Path) -> None:
    outcomes = Counter(work_on(name, seed, tmp_path, tiny_tokenizer) for name in NAMES for seed in range(6))
    assert min(outcomes["encoded"], outcomes["refused"]) > 6, "both must occur"


def work_on_many(name: str, seeds: range, folder: Path, tokenizer: Any) -> int:
    """Work on the files of all seeds, in processes that end as a step's does where a library ends its process by a
    signal, as Arrow does: the step says that the file cannot be read. Returns how often that was so."""
    state, ended = folder / "state", 0
    while seeds:
        if (child := os.fork()) == 0:
            try:
                for seed in seeds:
                    state.write_text(str(seed))
                    work_on(name, seed, folder, tokenizer)
                os._exit(0)
            except BaseException:
                state.write_text(f"{name}, seed {state.read_text()}: {traceback.format_exc()}")
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code <= 0, state.read_text()
        seeds = range(int(state.read_text()) + 1, seeds.stop) if code else range(0)
        assert code in (0, *(-number for number in limits.BROKEN)), f"signal {-code} at seed {seeds.start - 1}"
        assert not code or name in ("rows.parquet", "file.arrow", "stream.arrow"), name
        ended += bool(code)
    return ended


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(SLICES))
def test_no_mutated_file_breaks_what_reads_checks_and_encodes(part: int, tiny_tokenizer: Any, tmp_path: Path) -> None:
    seeds = range(part * PER_SLICE, (part + 1) * PER_SLICE)
    ended = {name: work_on_many(name, seeds, tmp_path, tiny_tokenizer) for name in NAMES}
    assert sum(ended.values()) <= PER_SLICE / 20, ended
