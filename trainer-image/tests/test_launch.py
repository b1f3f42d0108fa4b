"""The launcher without its ranks: arguments, verdicts, the HTTP port, and runs that need no training."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from hone.contract.exits import FailureClass
from hone.contract.progress import Progress
from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig, Topology
from hone.contract.verdict import Verdict
from hone_trainer import checkpoint, host, launch
from hone_trainer.errors import BadInput
from hone_trainer.server import serve
from hone_trainer.status import RankStatus, StatusDir
from hone_trainer.verdicts import classify, from_exception, from_exit, merge


@pytest.fixture
def status(tmp_path: Path) -> StatusDir:
    """A status directory of its own."""
    directory = tmp_path / "status"
    directory.mkdir()
    return StatusDir(directory)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A planned run whose model and data nothing here reads."""
    (tmp_path / "model").mkdir()
    config = tiny.make_run(tmp_path, nodes=2, processes=3)
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "term"))
    monkeypatch.setenv("HONE_METRICS_PORT", "0")
    return config


def with_topology(config: RunConfig, **changes: object) -> RunConfig:
    """The same run on other pods."""
    return config.model_copy(update={"topology": Topology(**changes)})


# Arguments and environment.


def test_a_gang_meets_at_pod_0(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_MASTER", "tiny-0.tiny")
    arguments = launch.torchrun_arguments(run, node=1)
    assert "--nnodes=2" in arguments
    assert "--node-rank=1" in arguments
    assert "--nproc-per-node=3" in arguments
    assert "--master-addr=tiny-0.tiny" in arguments
    assert "--master-port=29400" in arguments
    assert "--max-restarts=0" in arguments


def test_a_gang_without_a_meeting_place_is_refused(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_MASTER", raising=False)
    with pytest.raises(BadInput, match="HONE_MASTER"):
        launch.torchrun_arguments(run, node=0)


def test_one_pod_stays_on_loopback(run: RunConfig) -> None:
    arguments = launch.torchrun_arguments(with_topology(run, nodes=1, processes_per_node=2), node=0)
    assert "--master-addr=127.0.0.1" in arguments


def test_ranks_share_the_cpus(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cpus", lambda: 8)
    assert launch.rank_environment(with_topology(run, processes_per_node=3))["OMP_NUM_THREADS"] == "2"
    assert launch.rank_environment(with_topology(run, processes_per_node=16))["OMP_NUM_THREADS"] == "1"


def test_ranks_on_cpus_see_no_gpus(run: RunConfig) -> None:
    assert launch.rank_environment(run)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in launch.rank_environment(with_topology(run, gpus_per_node=1))


# Runs that need no training.


def test_a_finished_run_ends_at_once(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(run), 6)
    path.mkdir(parents=True)
    checkpoint.complete(path, step=6, world_size=6, zero_stage=0, final=True)
    monkeypatch.setattr(launch, "_run_ranks", lambda *_: pytest.fail("the ranks were started"))
    assert launch.main() == 0
    assert StepResult.model_validate_json((tmp_path / "term").read_text()).final_step == 6


def test_a_run_without_a_plan_is_bad_input(run: RunConfig, tmp_path: Path) -> None:
    (Path(run.paths.run) / "plan.json").unlink()
    assert launch.main() == 64
    result = StepResult.model_validate_json((tmp_path / "term").read_text())
    assert result.verdict.failure_class == FailureClass.BAD_INPUT
    assert "prepare" in result.verdict.hint


def test_ranks_that_leave_no_final_checkpoint_have_not_finished(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_run_ranks", lambda *_: 0)
    assert launch.main() == 70
    assert "final checkpoint" in (tmp_path / "term").read_text()


# Verdicts.


def verdict(failure_class: FailureClass, rank: int = 0, when: float = 1.0) -> Verdict:
    """A rank's verdict."""
    return Verdict(failure_class=failure_class, message="", rank=rank, time=when)


def test_the_cause_wins_over_its_echoes() -> None:
    found = merge(
        [
            verdict(FailureClass.COMMUNICATION, rank=0, when=1.0),
            verdict(FailureClass.CRASHED, rank=1, when=2.0),
            verdict(FailureClass.OUT_OF_MEMORY, rank=2, when=3.0),
        ]
    )
    assert (found.failure_class, found.rank) == (FailureClass.OUT_OF_MEMORY, 2)


def test_of_one_class_the_earliest_wins() -> None:
    found = merge([verdict(FailureClass.CRASHED, rank=0, when=2.0), verdict(FailureClass.CRASHED, rank=1, when=1.0)])
    assert found.rank == 1


def test_a_rank_killed_by_a_signal_is_named_with_it(status: StatusDir) -> None:
    status.write_status(RankStatus(rank=1, step=7))
    status.write_verdict(0, verdict(FailureClass.COMMUNICATION))
    status.write_failures({1: {"exitCode": -11, "time": 5.0}})
    found = launch._verdict(status, 1, node=2, killed_for_memory=False)
    assert found.failure_class == FailureClass.CRASHED
    assert "rank 1 was killed by SIGSEGV" in found.message
    assert (found.rank, found.node, found.step, found.exit_code) == (1, 2, 7, -11)


def test_ranks_that_torchrun_ended_itself_are_no_cause(status: StatusDir) -> None:
    status.write_failures({0: {"exitCode": -15, "time": 5.0}, 1: {"exitCode": -9, "time": 5.0}})
    assert "rank 1 was killed by SIGKILL" in launch._verdict(status, 1, node=0, killed_for_memory=False).message
    status.write_failures({0: {"exitCode": -15, "time": 5.0}})
    assert "rank 0 was killed by SIGTERM" in launch._verdict(status, 1, node=0, killed_for_memory=False).message
    status.write_verdict(1, verdict(FailureClass.COMMUNICATION, rank=1))
    assert launch._verdict(status, 1, node=0, killed_for_memory=False).failure_class == FailureClass.COMMUNICATION


def test_a_rank_that_spoke_keeps_its_own_words(status: StatusDir) -> None:
    status.write_verdict(1, verdict(FailureClass.OUT_OF_MEMORY, rank=1))
    status.write_failures({1: {"exitCode": 65, "time": 0.5}})
    assert launch._verdict(status, 1, node=0, killed_for_memory=False).failure_class == FailureClass.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("code", "killed", "expected"),
    [
        (-9, True, FailureClass.HOST_OUT_OF_MEMORY),
        (-9, False, FailureClass.CRASHED),
        (-6, True, FailureClass.CRASHED),
        (3, False, FailureClass.CRASHED),
    ],
)
def test_a_silent_death_is_judged_by_its_code(code: int, killed: bool, expected: FailureClass) -> None:
    assert from_exit(0, 0, code, 1.0, None, killed).failure_class == expected


def test_a_dead_torchrun_is_a_crash(status: StatusDir) -> None:
    found = launch._verdict(status, -9, node=0, killed_for_memory=False)
    assert found.failure_class == FailureClass.CRASHED
    assert "torchrun was killed by SIGKILL" in found.message


def test_ranks_that_end_well_have_no_verdict(status: StatusDir) -> None:
    assert launch._verdict(status, 0, node=0, killed_for_memory=False) is None


def test_a_stop_is_a_preemption_though_every_rank_ended_well(status: StatusDir) -> None:
    status.write_verdict(0, verdict(FailureClass.PREEMPTED))
    assert launch._verdict(status, 0, node=0, killed_for_memory=False).failure_class == FailureClass.PREEMPTED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadInput("spec.model", "is not there"), FailureClass.BAD_INPUT),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"), FailureClass.COMMUNICATION),
        (RuntimeError("NCCL communicator was aborted on rank 1"), FailureClass.COMMUNICATION),
        (ConnectionResetError("reset"), FailureClass.COMMUNICATION),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), FailureClass.OUT_OF_MEMORY),
        (MemoryError(), FailureClass.HOST_OUT_OF_MEMORY),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureClass.CRASHED),
        (KeyError("labels"), FailureClass.CRASHED),
    ],
)
def test_errors_are_sorted_into_classes(error: Exception, expected: FailureClass) -> None:
    assert classify(error) == expected


def test_an_explicit_cause_is_looked_at() -> None:
    error = RuntimeError("training failed")
    error.__cause__ = ConnectionResetError("reset")
    assert classify(error) == FailureClass.COMMUNICATION


def test_a_long_error_still_fits_the_contract() -> None:
    try:
        raise ValueError("x" * 5000)
    except ValueError as error:
        found = from_exception(error, rank=3, node=1, step=9)
    assert found.message.startswith("ValueError: xxx")
    assert re.search(r"\(test_launch.py:\d+\)$", found.message)
    assert (found.rank, found.node, found.step, found.exit_code) == (3, 1, 9, 70)


def test_oom_kills_are_read_from_either_cgroup_version(tmp_path: Path) -> None:
    v1, v2 = tmp_path / "memory.oom_control", tmp_path / "memory.events"
    v1.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    v2.write_text("low 0\noom 1\noom_kill 3\noom_group_kill 0\n")
    assert host.oom_kills([str(v2), str(v1)]) == 3
    assert host.oom_kills([str(tmp_path / "none"), str(v1)]) == 2
    assert host.oom_kills([str(tmp_path / "none")]) == 0


# The HTTP port.


@pytest.fixture
def port(status: StatusDir) -> Iterator[int]:
    """The port of a served status directory, where rank 0 lives."""
    server = serve(0, status, Progress(total_steps=10, pod_uid="u"))
    yield server.server_port
    server.shutdown()
    server.server_close()


def get(port: int, path: str) -> tuple[int, str]:
    """Status code and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_progress_is_known_before_the_ranks_are(port: int, status: StatusDir) -> None:
    code, body = get(port, "/progress")
    assert code == 200
    assert json.loads(body)["stage"] == "Starting"
    assert json.loads(body)["totalSteps"] == 10


def test_progress_is_rank_0s(port: int, status: StatusDir) -> None:
    status.write_status(RankStatus(rank=1, step=3, stage="Training"))
    status.write_status(RankStatus(rank=0, step=4, stage="Training", loss=float("nan"), grad_norm=1.0))
    told = json.loads(get(port, "/progress")[1])
    assert told["step"] == 4
    assert "gradNorm" not in told, "/progress is the contract's, not the metrics'"
    assert told.get("loss") is None, "JSON has no NaN"


def test_only_rank_0s_pod_answers_progress(status: StatusDir) -> None:
    server = serve(0, status, None)
    try:
        assert get(server.server_port, "/progress")[0] == 404
        assert get(server.server_port, "/healthz")[0] == 200
    finally:
        server.shutdown()
        server.server_close()


def test_metrics_have_a_series_per_rank(port: int, status: StatusDir) -> None:
    import os

    status.write_status(RankStatus(rank=0, step=4, loss=2.5, tokens=640, pid=os.getpid()))
    status.write_status(RankStatus(rank=1, step=4, pid=os.getpid()))
    code, body = get(port, "/metrics")
    assert code == 200
    assert 'hone_train_step{rank="1"} 4.0' in body
    assert 'hone_train_loss{rank="0"} 2.5' in body
    assert 'hone_train_loss{rank="1"}' not in body, "a figure that is not known has no series"
    assert 'hone_train_tokens_total{rank="0"} 640.0' in body
    assert float(re.search(r'process_resident_memory_bytes\{rank="0"\} (\S+)', body)[1]) > 1e6


def test_a_half_written_status_is_no_status(port: int, status: StatusDir) -> None:
    (status.directory / "rank-0.json").write_text('{"step": 4')
    assert json.loads(get(port, "/progress")[1])["stage"] == "Starting"
