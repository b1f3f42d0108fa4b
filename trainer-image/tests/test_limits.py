"""Inputs that expand without end or never end: each ends as BadInput that names it, within bounded memory and time."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_files import zstd
from rows import CHAT_TEMPLATE, chat_row

from hone.contract.exits import FailureClass, exit_code
from hone.contract.progress import Progress
from hone.contract.results import StepResult
from hone.contract.rewards import RewardFunction, RewardName, Rewards
from hone.contract.verdict import Verdict
from hone_trainer.protocol import host
from hone_trainer.protocol.errors import BadInput
from hone_trainer.rewards import checks, functions

pytestmark = pytest.mark.slow

READ = """
import sys
from hone_trainer.data.read import rows
from hone_trainer.data.sources import find_source
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.host import own_memory
try:
    count = sum(1 for _ in rows(find_source("train", sys.argv[1])))
    print("read", count)
except BadInput as error:
    print(error)
print(own_memory("VmHWM") >> 20)
"""
MOST_MIB, MOST_SECONDS = 1024, 120


def parquet_of_one_value(path: Path, value: str, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))
    table = pa.table({"text": column.cast(pa.dictionary(pa.int32(), pa.string())), "label": pa.array([1] * count)})
    pq.write_table(table, path, compression="zstd", use_dictionary=True, store_schema=False)


def parquet_of_nothing(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), compression="zstd") as writer:
        for _ in range(40):
            writer.write_table(pa.table({"text": pa.nulls(1_000_000, pa.string())}))


def arrow_of_one_letter(path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"text": ["a" * (48 << 20)] * 8})
    with pa.OSFile(str(path), "wb") as sink:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=1)


BLOCK = (b" " * 8191 + b"\n") * (64 << 7)
REPEATED: dict[str, tuple[str, bytes, Callable[[bytes], bytes]]] = {
    "gzip of blank lines": ("rows.jsonl.gz", BLOCK, gzip.compress),
    "zstd of blank lines": ("rows.jsonl.zst", BLOCK, zstd),
    "zstd of one line": ("rows.jsonl.zst", b"{" + b"a" * len(BLOCK), zstd),
    "zstd of CSV": ("rows.csv.zst", b"a,b\n" + BLOCK, zstd),
}
TABLES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "Parquet of one value": ("rows.parquet", lambda path: parquet_of_one_value(path, "a" * (64 << 20), 75)),
    "Parquet of nulls": ("rows.parquet", parquet_of_nothing),
    "Arrow of one letter": ("rows.arrow", arrow_of_one_letter),
}


def is_refused(path: Path) -> None:
    """Reading the file ends with an error that names it, in bounded memory and time."""
    began = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=300)
    *_, message, peak = ran.stdout.splitlines() or [ran.stderr, "0"]
    assert message.startswith(f"spec.dataset.train: {path.name}: it expands to more than"), ran.stdout + ran.stderr
    assert int(peak) < MOST_MIB
    assert time.monotonic() - began < MOST_SECONDS


@pytest.mark.train
@pytest.mark.parametrize("case", REPEATED)
def test_a_compressed_text_expands_within_bounds(tmp_path: Path, case: str) -> None:
    name, text, compress = REPEATED[case]
    (tmp_path / name).write_bytes(compress(text) * 12)
    is_refused(tmp_path / name)


@pytest.mark.train
@pytest.mark.parametrize("case", TABLES)
def test_a_table_expands_within_bounds(tmp_path: Path, case: str) -> None:
    name, make = TABLES[case]
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 1 << 20
    is_refused(tmp_path / name)


def test_repetitive_data_are_read(tmp_path: Path) -> None:
    from hone_trainer.data.read import rows
    from hone_trainer.data.sources import find_source

    row = json.dumps({"prompt": "one and the same long text " * 50, "completion": " yes"}) + "\n"
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(row.encode() * 20_000))
    parquet_of_one_value(tmp_path / "rows.parquet", "one and the same long text " * 50, 20_000)
    for name in ("rows.jsonl.gz", "rows.parquet"):
        assert sum(1 for _ in rows(find_source("train", str(tmp_path / name)))) == 20_000


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a|a?)+$"])
def test_a_pattern_that_tries_every_way_is_bad_input(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.setattr(functions, "LIMIT_SECONDS", 0.5)
    reward = functions.named("spec.reward.functions[2]", RewardFunction(name=RewardName.REGEX, pattern=pattern))
    began = time.monotonic()
    with pytest.raises(BadInput) as error:
        reward(prompts=["p"] * 2, completions=["a", "a" * 60 + "b"])
    assert error.value.field == "spec.reward.functions[2].pattern"
    assert "took longer than 0.5 s" in error.value.message
    assert time.monotonic() - began < 30
    assert reward(prompts=["p"], completions=["aaa"]) == [1.0]


def test_a_pattern_that_takes_long_to_compile_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LIMIT_SECONDS", 0.05)
    rewards = Rewards(functions=[RewardFunction(name=RewardName.REGEX, pattern="a")])
    with monkeypatch.context() as patched, pytest.raises(BadInput) as error:
        patched.setattr(checks.re, "compile", lambda _: time.sleep(10))
        checks.check_rewards(rewards)
    assert str(error.value) == "spec.reward.functions[0].pattern: it took longer than 0.05 s to compile"


# A whole step in a child process.

STEP = """
import os, signal, sys, time
from hone_trainer.protocol import host, limits
host.memory_limit = lambda: 600 << 20
def work():
    {work}
sys.exit(limits.supervised("{step}", work, {seconds}))
"""
READING = 'limits.reading("spec.dataset.train", "rows.csv")'
FILL = "kept = [b'x' * (1 << 20) for _ in iter(int, 1)]"


def supervised(tmp_path: Path, work: str, step: str = "prepare", seconds: float = 1.0) -> tuple[int, Verdict | None]:
    """Exit code and verdict of a step that does that."""
    log = tmp_path / "termination-log"
    log.unlink(missing_ok=True)
    code = STEP.format(work=work, step=step, seconds=seconds)
    environment = {**os.environ, "HONE_TERMINATION_LOG": str(log)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120)
    return ran.returncode, StepResult.from_dict(json.loads(log.read_text())).verdict if log.exists() else None


@pytest.mark.parametrize(
    ("work", "step", "code", "cls", "words"),
    [
        pytest.param(f"{READING}; exec('while True: pass')", "prepare", 64, "BadInput",
                     "spec.dataset.train: rows.csv did not end within 1 min", id="data without end"),
        pytest.param("exec('while True: pass')", "finish", 70, "DeadlineExceeded",
                     "finish did not end within 1 min", id="work without end"),
        pytest.param(f"{READING}; {FILL}", "prepare", 64, "BadInput",
                     "spec.dataset.train: rows.csv takes more than 0.5 GiB", id="data beyond the memory"),
        pytest.param(FILL, "prepare", 137, "HostOutOfMemory", "prepare needs more than 0.5 GiB", id="work beyond it"),
        pytest.param(f"{READING}; os.kill(os.getpid(), signal.SIGSEGV)", "prepare", 64, "BadInput",
                     "rows.csv cannot be read: the reader ended by SIGSEGV", id="a reader that dies"),
        pytest.param("os.kill(os.getpid(), signal.SIGSEGV)", "finish", 70, "Crashed", "by SIGSEGV", id="a crash"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "finish", 137, "HostOutOfMemory", "killed by the kernel",
                     id="killed"),
    ],
)  # fmt: skip
def test_a_step_ends_with_words(tmp_path: Path, work: str, step: str, code: int, cls: str, words: str) -> None:
    ended, verdict = supervised(tmp_path, work, step, seconds=60.0 if FILL in work else 1.0)
    assert verdict is not None, ended
    assert (ended, verdict.failure_class) == (code, cls)
    assert words in verdict.message


def test_a_step_that_ends_by_itself_keeps_its_result(tmp_path: Path) -> None:
    assert supervised(tmp_path, "return 64") == (64, None)
    assert supervised(tmp_path, "sys.exit(75)") == (75, None)
    assert supervised(tmp_path, "limits.allow(60); time.sleep(2); return 0") == (0, None), "time grows with the input"


SERVED = """
import json, os, sys, time, urllib.request
from hone_trainer.launcher.server import serve_rows
from hone_trainer.protocol import limits
from hone_trainer.protocol.rows_done import rows_done
def ask():
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{os.environ['HONE_METRICS_PORT']}/progress", timeout=5).read()
    except OSError:
        return None
def work():
    while (answer := ask()) is None:
        time.sleep(0.01)
    assert json.loads(answer)["stage"] == "Starting", answer
    rows_done.write("Tokenizing", 40, 100, 8.0)
    print(ask().decode())
    return 0
sys.exit(limits.supervised("prepare", work, 60.0, attend=serve_rows))
"""


def test_the_parent_of_prepare_answers_how_far_it_is() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "HONE_METRICS_PORT": str(port), "HONE_POD_UID": "me"}
    ran = subprocess.run([sys.executable, "-c", SERVED], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    progress = Progress.from_dict(json.loads(ran.stdout))
    assert (progress.pod_uid, progress.stage, progress.rows, progress.total_rows) == ("me", "Tokenizing", 40, 100)
    assert progress.rows_per_second == 8.0
    assert time.time() - progress.observed_time < 120


def test_a_port_that_is_taken_does_not_stop_prepare() -> None:
    with socket.create_server(("", 0)) as taken:
        environment = {**os.environ, "HONE_METRICS_PORT": str(taken.getsockname()[1])}
        code = SERVED.replace("ask()) is None", "1) is None").replace("    assert", "    return 0\n    assert")
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, "progress is not served" in ran.stderr) == (0, True), ran.stderr


@pytest.mark.parametrize(("text", "limited"), [("1048576\n", True), ("max\n", False), ("9" * 18, False), ("", False)])
def test_the_containers_memory(tmp_path: Path, text: str, limited: bool) -> None:
    (tmp_path / "memory.max").write_text(text)
    limit = host.memory_limit([str(tmp_path / "none"), str(tmp_path / "memory.max")])
    assert (limit == 1 << 20) if limited else (limit > 1 << 28)


AT_ONCE = """
fork = os.fork
def slow():
    child = fork()
    while child and signal.SIGTERM not in signal.sigpending():
        time.sleep(0.01)
    return child
os.fork = slow
"""
"""The parent continues only once it has been sent the signal."""


@pytest.mark.parametrize("setup", ["", AT_ONCE], ids=["while it runs", "right after its start"])
def test_a_signal_reaches_the_step(tmp_path: Path, setup: str) -> None:
    work = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); print('ready', flush=True); time.sleep(60)"
    code = "import os, signal, time\n" + setup + STEP.format(work=work, step="prepare", seconds=60)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 75


def test_a_signal_that_comes_before_the_step_handles_it_is_no_crash(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    code = "import time\n" + STEP.format(work="print('ready', flush=True); time.sleep(60)", step="prepare", seconds=60)
    environment = {**os.environ, "HONE_TERMINATION_LOG": str(log)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == exit_code(FailureClass.PREEMPTED)
    assert not log.exists(), "no verdict that it crashed"


PREPARE = """
import sys
from hone_trainer import prepare
from hone_trainer.protocol import limits
sys.exit(limits.supervised("prepare", prepare.main, float(sys.argv[1])))
"""


def prepared(tmp_path: Path, config: dict[str, Any], seconds: float) -> tuple[int, StepResult]:
    """Exit code and result of prepare in a pod of its own."""
    (tmp_path / "run.json").write_text(json.dumps(config))
    log = tmp_path / "termination-log"
    environment = {**os.environ, "HONE_RUN_CONFIG": str(tmp_path / "run.json"), "HONE_TERMINATION_LOG": str(log)}
    ran = subprocess.run([sys.executable, "-c", PREPARE, str(seconds)], env=environment, timeout=280)
    return ran.returncode, StepResult.from_dict(json.loads(log.read_text()))


@pytest.mark.train
def test_prepare_reports_its_own_result(tmp_path: Path, make_config: Any) -> None:
    code, result = prepared(tmp_path, make_config(), 270)
    assert code == 0 and result.plan is not None and result.dataset is not None


@pytest.mark.train
def test_a_chat_template_that_never_ends_is_bad_input(tmp_path: Path, make_config: Any, tiny_model: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    loops = "".join(f"{{% for i{n} in range(99999) %}}" for n in range(3))
    (model / "chat_template.jinja").write_text(f"{loops}{'{% endfor %}' * 3}{CHAT_TEMPLATE}")
    config = make_config(rows=[chat_row(i) for i in range(20)])
    config["paths"]["model"] = str(model)
    code, result = prepared(tmp_path, config, 40)
    assert code == 64 and result.verdict is not None
    assert result.verdict.message.startswith("spec.dataset.train: train.jsonl did not end")
    assert "chat template" in (result.verdict.hint or "")
