"""Chunks of rows by several processes: the same results as by one, and no process left, however it ends."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import chat_row, write_jsonl

from hone.contract.exits import FailureClass
from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat
from hone_trainer import prepare as step
from hone_trainer.data import checked, encoded, formats, read, ticker, tokenized, workers
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import survey
from hone_trainer.protocol import host
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import load_plan
from hone_trainer.protocol.rows_done import RowsDone

pytestmark = pytest.mark.slow

COUNTS = (1, 2, 3)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = set(host.children(os.getpid()))
    yield
    assert set(host.children(os.getpid())) <= before


@pytest.fixture
def split_up(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Uses so many workers for chunks of ten rows, of which this process does none itself."""

    def use(count: int) -> None:
        monkeypatch.setattr(read, "ROWS_AT_ONCE", 10)
        monkeypatch.setattr(workers, "ALONE", 0)
        monkeypatch.setattr(workers, "count_of_workers", lambda: count)

    return use


def numbers(end: int, broken: int | None = None) -> Iterator[int]:
    for number in range(end):
        if number == broken:
            raise BadInput("spec.dataset.train", "cannot be read")
        yield number


def work(number: int) -> tuple[int, bytes]:
    if number == 70:
        raise BadInput("spec.model", "cannot be used", "Use another.")
    # More than a pipe holds.
    return number, bytes([number % 256]) * (300_000 if number % 7 == 0 else 10)


@pytest.mark.parametrize("count", COUNTS)
def test_results_come_in_the_order_of_the_tasks(count: int) -> None:
    assert [*workers.in_order(work, numbers(60), count)] == [*map(work, range(60))]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("broken", "words"), [(75, "cannot be used"), (40, "cannot be read"), (0, "cannot be read")])
def test_an_error_has_its_turn_as_results_have(count: int, broken: int, words: str) -> None:
    results = workers.in_order(work, numbers(90, broken), count)
    seen = []
    with pytest.raises(BadInput, match=words) as error:
        for number, _ in results:
            seen.append(number)
    assert seen == [*range(min(broken, 70))]
    assert error.value.field in ("spec.model", "spec.dataset.train")


def test_results_that_nobody_waits_for_end_the_workers() -> None:
    results = workers.in_order(work, numbers(60), 3)
    assert [next(results)[0] for _ in range(5)] == [*range(5)]
    results.close()  # type: ignore[attr-defined]


def test_few_chunks_start_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a worker was started"))
    assert len([*workers.in_order(work, numbers(workers.ALONE), 3)]) == workers.ALONE


def test_a_worker_that_is_killed_is_told_by_its_signal() -> None:
    def die(number: int) -> int:
        if number == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(workers.WorkerDied) as error:
        [*workers.in_order(die, numbers(60), 2)]
    assert error.value.number == signal.SIGKILL


def test_a_worker_ends_with_its_parent() -> None:
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        results = workers.in_order(lambda number: os.getpid(), numbers(60), 2)
        for _ in range(workers.ALONE):
            next(results)
        os.write(write_end, str(next(results)).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    worker = int(os.read(read_end, 20))
    os.waitpid(parent, 0)
    os.close(write_end)
    # End of file: neither has the pipe any more.
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    assert worker != parent


def test_memory_is_shared_among_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cpus", lambda: 64)
    monkeypatch.setattr(host, "memory_limit", lambda: 8 << 30)
    assert 1 < workers.count_of_workers() <= 14
    monkeypatch.setattr(host, "memory_limit", lambda: 1 << 20)
    assert workers.count_of_workers() == 1


def test_the_log_tells_rows_per_second_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter((100.0, 100.5, 104.0, 110.0))
    reports = RowsDone()
    monkeypatch.setattr(ticker, "rows_done", reports)
    monkeypatch.setattr("hone_trainer.data.ticker.time.monotonic", lambda: next(clock))
    progress = ticker.Ticker("Tokenizing")
    progress.tick("Tokenizing", 50, 3000)
    assert reports.progress().rows is None, "nothing is reported of what ends at once"
    with caplog.at_level("INFO"):
        progress.tick("Tokenizing", 400, 3000)
        progress.tick("Tokenizing", 1000, 3000)
    (record,) = caplog.records
    fields = vars(record)
    assert [fields[name] for name in ("rows", "totalRows", "rowsPerSecond", "secondsLeft")] == [1000, 3000, 100, 20]
    reported = reports.progress()
    assert (reported.stage, reported.rows, reported.total_rows, reported.rows_per_second) == (
        "Tokenizing",
        1000,
        3000,
        100.0,
    )
    progress.end()
    ended = reports.progress()
    assert (ended.stage, ended.rows, ended.total_rows, ended.rows_per_second) == ("Starting", None, None, None)
    assert ended.observed_time >= reported.observed_time


@pytest.mark.train
def test_the_figures_of_a_stage_of_rows_are_not_reported_after_it(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, stages = RowsDone(), list[str]()
    monkeypatch.setattr(ticker, "rows_done", reports)
    monkeypatch.setattr(ticker, "_WRITE_SECONDS", 0.0)

    def noting(owner: Any, name: str) -> None:
        """Note what is reported before and after each call."""
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            stages.append(f"{name} {reports.progress().stage}")
            result = original(*arguments, **options)
            stages.append(f"{name} {reports.progress().stage}")
            return result

        monkeypatch.setattr(owner, name, call)

    noting(ticker.Ticker, "tick")
    noting(step, "materialize_models")
    noting(step, "_pack")
    step.prepare(RunConfig.from_dict(make_config()))
    assert [*dict.fromkeys(stages)] == [
        "tick Starting",
        "tick CheckingRows",
        "materialize_models Starting",
        "tick Tokenizing",
        "_pack Starting",
    ]


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


@pytest.mark.train
@pytest.mark.parametrize(
    ("objective", "row"),
    [
        ("SFT", chat_row),
        ("KTO", lambda i: {"prompt": f"{i}?", "completion": f" answer {i}", "label": i % 3 > 0}),
    ],
)
def test_prepared_data_are_the_same_bytes_however_many_workers(
    objective: str, row: Any, make_config: Any, tmp_path: Path, split_up: Any
) -> None:
    lines = [row(i) | ({"id": i} if i % 5 == 0 else {}) for i in range(250)]
    lines[30], lines[77], lines[210] = "no JSON", lines[5], {"prompt": "a"}
    outcomes = []
    for count in COUNTS:
        split_up(count)
        directory = tmp_path / str(count)
        paths = {"workspace": str(directory), "run": str(directory / "run")}
        config = RunConfig.from_dict(make_config(lines, objective=objective, paths=paths))
        step.prepare(config)
        planned = load_plan(config)
        assert planned is not None
        outcomes.append((planned.dataset, planned.plan.warnings, files_of(Path(planned.prepared))))
    (dataset, warnings, files), *others = outcomes
    assert dataset.bad_rows[0].first.endswith(":31")
    assert {each.key: each.count for each in dataset.unused_keys} == {"`id`": 49}
    for other in others:
        assert other[:2] == (dataset, warnings)
        assert other[2].keys() == files.keys()
        assert [name for name in files if files[name] != other[2][name]] == []


@pytest.mark.parametrize("count", COUNTS)
def test_a_row_that_does_not_fit_into_memory_is_named(
    count: int, split_up: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_up(count)
    original = formats.to_sample

    def to_sample(row: dict[str, Any], format: DataFormat) -> Any:
        if "Order 55." in str(row):
            raise MemoryError
        return original(row, format)

    monkeypatch.setattr(checked, "to_sample", to_sample)
    source = find_source("train", str(write_jsonl(tmp_path / "rows.jsonl", [chat_row(i) for i in range(100)])))
    with pytest.raises(BadInput, match=r"rows\.jsonl:51 does not fit into the pod's memory"):
        survey([source], DataFormat.AUTO, 0.1, 0.1)


@pytest.mark.train
def test_a_step_whose_worker_is_killed_says_that_memory_was_short(
    make_config: Any, split_up: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_up(2)
    parent, original = os.getpid(), encoded.encode_chunk

    def encode_chunk(*arguments: Any) -> Any:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    monkeypatch.setattr("hone_trainer.data.tokenized.encode_chunk", encode_chunk)
    (tmp_path / "run.json").write_text(RunConfig.from_dict(make_config()).to_json())
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "term"))
    handler = signal.getsignal(signal.SIGTERM)
    code = step.main()
    signal.signal(signal.SIGTERM, handler)
    verdict = StepResult.model_validate_json((tmp_path / "term").read_bytes()).verdict
    assert verdict is not None
    assert (code, verdict.failure_class) == (137, FailureClass.HOST_OUT_OF_MEMORY)
    assert [path.name for path in (tmp_path / "workspace" / "prepared").iterdir()] == []


class Stopped(BaseException):
    """What ends a process that is told to stop."""


def prepared_files(config: RunConfig) -> tuple[object, list[str], dict[str, bytes]]:
    step.prepare(config)
    planned = load_plan(config)
    assert planned is not None
    return planned.dataset, planned.plan.warnings, files_of(Path(planned.prepared))


@pytest.mark.train
@pytest.mark.parametrize("damage", ["none", "a lost byte", "another byte", "half a line", "another digest"])
def test_a_run_that_is_stopped_while_it_tokenizes_continues_there(
    damage: str, make_config: Any, tmp_path: Path, split_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_up(1)
    lines: list[Any] = [chat_row(i) | ({"id": i} if i % 5 == 0 else {}) for i in range(250)]
    lines[30], lines[77] = "no JSON", lines[5]
    lines[40] = {"messages": [{"role": "assistant", "content": "a"}, {"role": "system", "content": "late"}]}
    paths = {"workspace": str(tmp_path / "one"), "run": str(tmp_path / "one" / "run")}
    expected = prepared_files(RunConfig.from_dict(make_config(lines, paths=paths)))
    config, encoded_chunks = RunConfig.from_dict(make_config(lines)), []
    encode, stop_at = tokenized.encode_chunk, 12

    def count(*arguments: Any) -> Any:
        if len(encoded_chunks) == stop_at:
            raise Stopped
        encoded_chunks.append(arguments)
        return encode(*arguments)

    monkeypatch.setattr(tokenized, "encode_chunk", count)
    with pytest.raises(Stopped):
        step.prepare(config)
    (left,) = (tmp_path / "workspace" / "prepared").glob(".tmp-*")
    stream, journal = left / "raw" / "train.arrow", left / "raw" / "journal.jsonl"
    if damage == "a lost byte":
        os.truncate(stream, stream.stat().st_size - 1)
    if damage == "another byte":
        content = bytearray(stream.read_bytes())
        content[-1000] ^= 1
        stream.write_bytes(content)
    if damage == "half a line":
        os.truncate(journal, journal.stat().st_size - 5)
    if damage == "another digest":
        journal.write_bytes(b'{"digest": "of others"}\n' + journal.read_bytes().partition(b"\n")[2])
    stop_at, before = -1, len(encoded_chunks)
    assert prepared_files(config) == expected
    again = {"none": 0, "another digest": before}.get(damage, 1)
    assert len(encoded_chunks) - before == 25 - 12 + again
    assert not list((tmp_path / "workspace" / "prepared").glob(".tmp-*"))


def another(config: dict[str, Any], **sections: Any) -> RunConfig:
    """The next job on the workspace."""
    paths = {**config["paths"], "run": f"{config['paths']['workspace']}/next"}
    return RunConfig.from_dict({**config, "job": {**config["job"], "uid": "next"}, "paths": paths, **sections})


@pytest.mark.train
@pytest.mark.parametrize(
    ("objective", "row"),
    [
        ("SFT", chat_row),
        ("Classification", lambda i: {"text": f"It {['works', 'broke'][i % 2]} {i}.", "label": ["good", "bad"][i % 2]}),
    ],
)
def test_the_next_job_with_the_same_data_reads_no_row(
    objective: str, row: Any, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [row(i) | ({"id": i} if i % 5 == 0 else {}) for i in range(150)]
    lines[30], lines[77] = "no JSON", lines[5]
    config = make_config(lines, objective=objective)
    expected = prepared_files(RunConfig.from_dict(config))
    reads: list[object] = []
    original = step.survey
    monkeypatch.setattr(step, "survey", lambda *a, **k: reads.append(a) or original(*a, **k))
    assert prepared_files(another(config, hyperparameters={"learningRate": 1e-3})) == expected
    assert not reads
    surveys = Path(config["paths"]["workspace"]) / "prepared" / "surveys"
    (survey_file,) = surveys.glob("*.json")
    Path(config["data"]["train"]).write_bytes(Path(config["data"]["train"]).read_bytes() + b"\n")
    assert prepared_files(another(config, data={**config["data"], "testFraction": 0.2}))[0] != expected[0]
    assert len(reads) == 1, "other data"
    survey_file.write_text("[]")
    config = make_config(lines, objective=objective)
    assert prepared_files(another(config, hyperparameters={"learningRate": 2e-3})) == expected
    assert len(reads) == 2, "what is stored cannot be read"


@pytest.mark.train
def test_rows_are_read_again_where_what_is_stored_of_them_has_no_prepared_data(make_config: Any) -> None:
    config = make_config([chat_row(i) for i in range(150)])
    dataset, warnings, files = prepared_files(RunConfig.from_dict(config))
    other = another(config, hyperparameters={"seed": 7})
    assert prepared_files(other)[2].keys() == files.keys()
    assert prepared_files(other)[2] != files
    assert prepared_files(another(config))[:2] == (dataset, warnings)
