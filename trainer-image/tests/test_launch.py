"""The launcher without its ranks: arguments, verdicts, the HTTP port, and runs that need no training."""

import contextlib
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from hone.contract.exits import FailureClass
from hone.contract.results import StepResult
from hone.contract.runconfig import Attempt, RunConfig, Topology
from hone.contract.verdict import Verdict
from hone_trainer import launch
from hone_trainer.launcher import gang, tunnel
from hone_trainer.launcher.attempt import PodAttempt
from hone_trainer.launcher.server import serve
from hone_trainer.planning.memory_fallback import load_level
from hone_trainer.protocol import host
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import load_plan, save_plan
from hone_trainer.protocol.probe import save_probe
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.protocol.searchfile import out_of_memory_mark
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.protocol.verdicts import classify, from_exception, from_exit, merge, of_pod
from hone_trainer.training import checkpoint


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


def test_torchrun_meets_on_loopback(run: RunConfig) -> None:
    arguments = gang.torchrun_arguments(run, node=1, store_port=4711)
    assert "--nnodes=2" in arguments
    assert "--rdzv-conf=rank=1,timeout=1800" in arguments
    assert "--nproc-per-node=3" in arguments
    assert "--rdzv-endpoint=127.0.0.1:4711" in arguments
    assert "--max-restarts=0" in arguments


@pytest.fixture
def tunnels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What is opened for other pods, without the key."""
    opened: list[tuple[object, ...]] = []

    @contextlib.contextmanager
    def record(*arguments: object, **options: object) -> Iterator[None]:
        opened.append((*arguments[:-1], *options.values()))
        yield

    monkeypatch.setattr(tunnel, "entrance", record)
    monkeypatch.setattr(tunnel, "passage", record)
    monkeypatch.setenv("HONE_MASTER", "tiny-0.tiny")
    return opened


@pytest.mark.parametrize(("probing", "port"), [(False, 29400), (True, 29401)])
def test_a_gang_meets_at_pod_0(run: RunConfig, tunnels: list[tuple[object, ...]], probing: bool, port: int) -> None:
    with gang.rendezvous(run, 0, probing=probing) as store_port:
        assert tunnels == [(port, store_port)]
    with gang.rendezvous(run, 1, probing=probing) as local_port:
        assert tunnels[1:] == [("tiny-0.tiny", port, local_port, 1800)]


def test_a_pod_waits_for_the_others_as_long_as_the_operator_does(
    run: RunConfig, tunnels: list[tuple[object, ...]]
) -> None:
    patient = run.model_copy(update={"start_deadline_seconds": 90_000})
    assert "--rdzv-conf=rank=0,timeout=90000" in gang.torchrun_arguments(patient, node=0, store_port=4711)
    with gang.rendezvous(patient, 1):
        assert tunnels[0][-1] == 90_000


def test_a_gang_without_a_meeting_place_is_refused(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_MASTER", raising=False)
    with pytest.raises(BadInput, match="HONE_MASTER"), gang.rendezvous(run, 0):
        pytest.fail("it has no address")


def test_one_pod_opens_nothing_to_others(run: RunConfig, tunnels: list[tuple[object, ...]]) -> None:
    alone = with_topology(run, nodes=1, processes_per_node=2)
    with gang.rendezvous(alone, 0):
        assert tunnels == []
    for gpus in (0, 2):
        environment = gang.rank_environment(with_topology(run, nodes=1, gpus_per_node=gpus))
        assert (environment["GLOO_SOCKET_IFNAME"], environment["NCCL_SOCKET_IFNAME"]) == ("lo", "lo")
    assert "NCCL_SOCKET_IFNAME" not in gang.rank_environment(run)


def test_ranks_share_the_cpus(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cpus", lambda: 8)
    assert gang.rank_environment(with_topology(run, processes_per_node=3))["OMP_NUM_THREADS"] == "2"
    assert gang.rank_environment(with_topology(run, processes_per_node=16))["OMP_NUM_THREADS"] == "1"


def test_ranks_on_cpus_see_no_gpus(run: RunConfig) -> None:
    assert gang.rank_environment(run)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in gang.rank_environment(with_topology(run, gpus_per_node=1))


def test_ranks_on_cpus_alone_have_another_heap(run: RunConfig) -> None:
    assert gang.rank_environment(run)["GLIBC_TUNABLES"] == gang.CPU_HEAP
    assert "GLIBC_TUNABLES" not in gang.rank_environment(with_topology(run, gpus_per_node=1))


def test_gangs_on_gpus_record_their_collectives_where_they_outlive_the_pod(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = with_topology(run, nodes=2, gpus_per_node=1)
    recorded = gang.rank_environment(gpus)
    assert recorded["TORCH_FR_BUFFER_SIZE"] == "2000"
    assert recorded["TORCH_FR_DUMP_TEMP_FILE"] == f"{run.paths.run}/nccl-trace-rank-"
    assert "TORCH_FR_BUFFER_SIZE" not in gang.rank_environment(run), "on CPUs"
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "0")
    assert "TORCH_FR_BUFFER_SIZE" not in gang.rank_environment(gpus)


def test_memory_of_gpus_is_in_blocks_that_grow_unless_the_user_sets_it(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = with_topology(run, gpus_per_node=1)
    assert gang.rank_environment(gpus)["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_ALLOC_CONF" not in gang.rank_environment(run)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    assert gang.rank_environment(gpus)["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert "PYTORCH_ALLOC_CONF" not in gang.rank_environment(gpus)


# Runs that need no training.


def test_a_finished_run_ends_at_once(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(run), 6)
    path.mkdir(parents=True)
    tiny.mark_whole(path, step=6, world_size=6, zero_stage=0, final=True)
    monkeypatch.setattr(gang, "run_ranks", lambda *_, **__: pytest.fail("the ranks were started"))
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
    monkeypatch.setattr(gang, "run_ranks", lambda *_, **__: 0)
    assert launch.main() == 70
    assert "final checkpoint" in (tmp_path / "term").read_text()


@pytest.mark.parametrize(("lost", "code"), [(FailureClass.COMMUNICATION, 68), (FailureClass.NEVER_STARTED, 69)])
@pytest.mark.slow
def test_peers_that_left_a_finished_run_are_no_failure(
    lost: FailureClass, code: int, run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def run_ranks(*_: object, **__: object) -> Verdict:
        if ends_well:
            path = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(run), 6)
            path.mkdir(parents=True)
            tiny.mark_whole(path, step=6, world_size=6, zero_stage=0, final=True)
        return verdict(lost)

    monkeypatch.setattr(gang, "run_ranks", run_ranks)
    ends_well = False
    assert launch.main() == code
    ends_well = True
    assert launch.main() == 0
    assert ended(tmp_path).final_step == 6


# Out of memory.


def starts(monkeypatch: pytest.MonkeyPatch, ends: list[int | Verdict]) -> list[tuple[int, bool]]:
    """Lets starts of the ranks end like this, one after another. Gathers each one's level and whether it is a probe."""
    attempts: list[tuple[int, bool]] = []

    def run_ranks(config, node, status, attempt, look, *, probing):
        attempts.append((attempt.memory_fallback_level, probing))
        return ends[len(attempts) - 1]

    monkeypatch.setattr(gang, "run_ranks", run_ranks)
    return attempts


def out_of_memory(step: int) -> Verdict:
    """A rank's word."""
    return Verdict(failure_class=FailureClass.OUT_OF_MEMORY, message="no room", rank=0, step=step, time=1.0)


def one_pod(run: RunConfig, root: Path, **changes: object) -> RunConfig:
    """The run on one pod of two ranks, planned with other figures."""
    config = tiny.make_run(root, processes=2, micro_batch=2, shared=root)
    planned = load_plan(config)
    save_plan(config, planned.model_copy(update={"plan": planned.plan.model_copy(update=changes)}))
    return config


def ended(root: Path) -> StepResult:
    """What the launcher told at its end."""
    return StepResult.model_validate_json((root / "term").read_text())


@pytest.mark.slow
def test_one_pod_goes_down_the_memory_fallback_in_place(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_pod(run, tmp_path)
    crash = Verdict(failure_class=FailureClass.CRASHED, message="otherwise", rank=1, time=1.0)
    attempts = starts(monkeypatch, [out_of_memory(11), out_of_memory(0), crash])
    assert launch.main() == 70
    assert attempts == [(0, False), (1, False), (2, False)]
    assert ended(tmp_path).restarts == 2
    expected = [
        "microBatchSize 2 → 1, gradientAccumulationSteps 1 → 2: out of memory at step 12",
        "gradientCheckpointing on: out of memory at step 1",
    ]
    assert ended(tmp_path).changes == expected
    # The next attempt begins where this one stood, and knows why.
    attempts = starts(monkeypatch, [crash])
    assert launch.main() == 70
    assert attempts == [(2, False)]
    assert (ended(tmp_path).restarts, ended(tmp_path).changes) == (0, expected)
    assert load_level(config).level == 2


def test_several_pods_end_for_the_next_attempt(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = starts(monkeypatch, [out_of_memory(3)])
    monkeypatch.setenv("HONE_ATTEMPT", '{"number": 3, "memoryRung": 1}')
    assert launch.main() == 65
    assert attempts == [(1, False)]
    assert (ended(tmp_path).restarts, ended(tmp_path).verdict.final) == (0, False)
    assert load_level(run).level == 0, "the operator counts for them"


def test_the_end_of_the_memory_fallback_is_final_and_says_what_to_do(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_pod(run, tmp_path, method="Full", gradient_checkpointing=True)
    attempts = starts(monkeypatch, [out_of_memory(1), out_of_memory(1)])
    assert launch.main() == 65
    assert attempts == [(0, False), (1, False)]
    verdict = ended(tmp_path).verdict
    assert verdict.final
    for figure in ("microBatchSize is 1", "sequenceLength below 16", "GiB", "LoRA"):
        assert figure in verdict.hint


def test_a_model_that_does_not_fit_is_not_tried_on_levels_that_cannot_help(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Levels of the memory fallback: 0 the plan, 1 micro-batch 1, 2 checkpointing, 3 ZeRO-2, 4 ZeRO-3.
    config = tiny.make_run(tmp_path, processes=2, micro_batch=2, shared=tmp_path)
    planned = load_plan(config)
    config = with_topology(config, processes_per_node=2)  # which leaves the ZeRO stage to the plan
    (tmp_path / "run.json").write_text(config.to_json())
    save_plan(config, planned.model_copy(update={"run_config_digest": digest_of(config)}))
    attempts: list[int] = []

    def run_ranks(config, node, status, attempt, look, *, probing):
        attempts.append(attempt.memory_fallback_level)
        status.write_status(RankStatus(rank=0, stage="Starting"))
        return out_of_memory(0)

    monkeypatch.setattr(gang, "run_ranks", run_ranks)
    assert launch.main() == 65
    assert attempts == [0, 3, 4]
    assert ended(tmp_path).verdict.final
    assert "did not fit before training began" in ended(tmp_path).verdict.hint
    assert [change.partition(" →")[0] for change in ended(tmp_path).changes] == [
        "microBatchSize 2",
        "gradientCheckpointing on: out of memory before training began",
        "zeroStage 0",
        "zeroStage 2",
    ]


def test_levels_that_the_gpu_as_reported_cannot_hold_are_left_out(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_run(tmp_path, micro_batch=4, activation_bytes=40 * 2**30, shared=tmp_path)
    attempts: list[int] = []

    def run_ranks(config, node, status, attempt, look, *, probing):
        attempts.append(attempt.memory_fallback_level)
        status.write_status(RankStatus(rank=0, stage="Probing", gpu_total_bytes=15 * 2**30))
        return out_of_memory(0)

    monkeypatch.setattr(gang, "run_ranks", run_ranks)
    assert launch.main() == 65
    assert attempts == [0, 2, 3], "half of the activations would take 20 GiB"
    assert ended(tmp_path).changes[0].endswith("out of memory in the probe, on GPUs of 15.0 GiB")
    assert config.topology.memory_bytes is None


def test_a_stop_between_two_starts_is_obeyed_at_once(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_pod(run, tmp_path)

    def run_ranks(config, node, status, attempt, look, *, probing):
        status.raise_stop()
        return out_of_memory(4)

    monkeypatch.setattr(gang, "run_ranks", run_ranks)
    assert launch.main() == 75
    assert ended(tmp_path).verdict.failure_class == FailureClass.PREEMPTED
    assert load_level(config).level == 1, "the next attempt need not find out again"


# The probe.


@pytest.mark.slow
def test_a_probe_comes_first_and_once_on_each_level(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_pod(run, tmp_path, probe=True)
    crash = Verdict(failure_class=FailureClass.CRASHED, message="otherwise", rank=1, time=1.0)
    attempts = starts(monkeypatch, [out_of_memory(0), 0, crash])
    save_probe(config, level=7, peak_bytes=1, seconds_per_step=1.0)  # of another level
    assert launch.main() == 70
    assert attempts == [(0, True), (1, True), (1, False)]
    save_probe(config, level=1, peak_bytes=1, seconds_per_step=1.0)
    attempts = starts(monkeypatch, [crash])
    assert launch.main() == 70
    assert attempts == [(1, False)], "measured by an earlier attempt"


def test_no_probe_once_there_is_a_checkpoint(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = one_pod(run, tmp_path, probe=True)
    path = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(config), 2)
    path.mkdir(parents=True)
    tiny.mark_whole(path, step=2, world_size=2, zero_stage=0, final=False)
    crash = Verdict(failure_class=FailureClass.CRASHED, message="otherwise", rank=1, time=1.0)
    attempts = starts(monkeypatch, [crash])
    assert launch.main() == 70
    assert attempts == [(0, False)]


# Verdicts.


def verdict(failure_class: FailureClass, rank: int = 0, when: float = 1.0) -> Verdict:
    """A rank's verdict."""
    return Verdict(failure_class=failure_class, message="", rank=rank, time=when)


def test_the_cause_wins_over_its_echoes() -> None:
    merged = merge(
        [
            verdict(FailureClass.COMMUNICATION, rank=0, when=1.0),
            verdict(FailureClass.CRASHED, rank=1, when=2.0),
            verdict(FailureClass.OUT_OF_MEMORY, rank=2, when=3.0),
        ]
    )
    assert (merged.failure_class, merged.rank) == (FailureClass.OUT_OF_MEMORY, 2)


def test_of_one_class_the_earliest_wins() -> None:
    merged = merge([verdict(FailureClass.CRASHED, rank=0, when=2.0), verdict(FailureClass.CRASHED, rank=1, when=1.0)])
    assert merged.rank == 1


def test_a_rank_killed_by_a_signal_is_named_with_it(status: StatusDir) -> None:
    status.write_status(RankStatus(rank=1, step=7))
    status.write_verdict(0, verdict(FailureClass.COMMUNICATION))
    status.write_failures({1: {"exitCode": -11, "time": 5.0}})
    failure = of_pod(status, 1, node=2, killed_for_memory=False)
    assert failure.failure_class == FailureClass.CRASHED
    assert "rank 1 was killed by SIGSEGV" in failure.message
    assert (failure.rank, failure.node, failure.step, failure.exit_code) == (1, 2, 7, -11)


def test_ranks_that_torchrun_ended_itself_are_no_cause(status: StatusDir) -> None:
    status.write_failures({0: {"exitCode": -15, "time": 5.0}, 1: {"exitCode": -9, "time": 5.0}})
    assert "rank 1 was killed by SIGKILL" in of_pod(status, 1, node=0, killed_for_memory=False).message
    status.write_failures({0: {"exitCode": -15, "time": 5.0}})
    assert "rank 0 was killed by SIGTERM" in of_pod(status, 1, node=0, killed_for_memory=False).message
    status.write_verdict(1, verdict(FailureClass.COMMUNICATION, rank=1))
    assert of_pod(status, 1, node=0, killed_for_memory=False).failure_class == FailureClass.COMMUNICATION


def test_a_rank_that_spoke_keeps_its_own_words(status: StatusDir) -> None:
    status.write_verdict(1, verdict(FailureClass.OUT_OF_MEMORY, rank=1))
    status.write_failures({1: {"exitCode": 65, "time": 0.5}})
    assert of_pod(status, 1, node=0, killed_for_memory=False).failure_class == FailureClass.OUT_OF_MEMORY


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
    failure = of_pod(status, -9, node=0, killed_for_memory=False)
    assert failure.failure_class == FailureClass.CRASHED
    assert "torchrun was killed by SIGKILL" in failure.message


def test_ranks_that_end_well_have_no_verdict(status: StatusDir) -> None:
    assert of_pod(status, 0, node=0, killed_for_memory=False) is None


def test_a_stop_is_a_preemption_though_every_rank_ended_well(status: StatusDir) -> None:
    status.write_verdict(0, verdict(FailureClass.PREEMPTED))
    assert of_pod(status, 0, node=0, killed_for_memory=False).failure_class == FailureClass.PREEMPTED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadInput("spec.model", "is not there"), FailureClass.BAD_INPUT),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"), FailureClass.COMMUNICATION),
        (RuntimeError("NCCL communicator was aborted on rank 1"), FailureClass.COMMUNICATION),
        (ConnectionResetError("reset"), FailureClass.COMMUNICATION),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED when calling cudnnCreate"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("NCCL error: Cuda failure 2 'out of memory'"), FailureClass.OUT_OF_MEMORY),
        (MemoryError(), FailureClass.HOST_OUT_OF_MEMORY),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureClass.CRASHED),
        (KeyError("labels"), FailureClass.CRASHED),
    ],
)
def test_errors_are_sorted_into_classes(error: Exception, expected: FailureClass) -> None:
    assert classify(error) == expected


@pytest.mark.parametrize(
    ("on_gpu", "expected"), [(False, FailureClass.OUT_OF_MEMORY), (True, FailureClass.HOST_OUT_OF_MEMORY)]
)
def test_no_room_on_the_host_is_the_ranks_own_memory_only_without_gpus(on_gpu: bool, expected: FailureClass) -> None:
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
    assert classify(error, on_gpu=on_gpu) == expected
    assert classify(MemoryError(), on_gpu=on_gpu) == FailureClass.HOST_OUT_OF_MEMORY


def test_an_explicit_cause_is_looked_at() -> None:
    error = RuntimeError("training failed")
    error.__cause__ = ConnectionResetError("reset")
    assert classify(error) == FailureClass.COMMUNICATION


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        # What safetensors raises.
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_crash_that_names_the_workspace(error: Exception) -> None:
    failure = from_exception(error, rank=0, node=0, step=6)
    assert failure.failure_class == FailureClass.CRASHED
    assert "spec.workspace.size" in failure.hint
    assert from_exception(ValueError("no such column"), rank=0, node=0, step=6).hint is None


def test_a_long_error_still_fits_the_contract() -> None:
    try:
        raise ValueError("x" * 5000)
    except ValueError as error:
        failure = from_exception(error, rank=3, node=1, step=9)
    assert failure.message.startswith("ValueError: xxx")
    assert re.search(r"\(test_launch.py:\d+\)$", failure.message)
    assert (failure.rank, failure.node, failure.step, failure.exit_code) == (3, 1, 9, 70)


def test_oom_kills_are_read_from_either_cgroup_version(tmp_path: Path) -> None:
    v1, v2 = tmp_path / "memory.oom_control", tmp_path / "memory.events"
    v1.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    v2.write_text("low 0\noom 1\noom_kill 3\noom_group_kill 0\n")
    assert host.oom_kills([str(v2), str(v1)]) == 3
    assert host.oom_kills([str(tmp_path / "none"), str(v1)]) == 2
    assert host.oom_kills([str(tmp_path / "none")]) == 0


# The HTTP port.


@pytest.fixture
def pod(run: RunConfig, status: StatusDir) -> PodAttempt:
    """A pod that has served nothing yet."""
    return PodAttempt(run, load_plan(run).plan, Attempt(number=1), 0, status)


def test_a_trial_that_ran_out_of_memory_costs_no_level_of_the_memory_fallback(
    pod: PodAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict(failure_class=FailureClass.OUT_OF_MEMORY, message="no memory", rank=0, time=0.0)
    levels: list[int] = []
    pod.config = pod.config.model_copy(update={"topology": pod.config.topology.model_copy(update={"nodes": 1})})

    def start(pod: PodAttempt) -> Verdict | None:
        levels.append(pod.level)
        if len(levels) == 1:
            mark = out_of_memory_mark(pod.config, 3)
            mark.parent.mkdir(parents=True)
            mark.touch()
        return verdict if len(levels) < 3 else None

    monkeypatch.setattr(launch, "_start", start)
    assert launch._until_it_fits(pod) is None
    assert levels == [0, 0, 1]
    assert pod.restarts == 2


@pytest.fixture
def port(pod: PodAttempt, status: StatusDir) -> Iterator[int]:
    """The port of a served status directory, where rank 0 lives."""
    server = serve(0, status, pod.progress, lambda: pod.measured)
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
    assert json.loads(body)["totalSteps"] == 6


def test_progress_is_rank_0s(port: int, status: StatusDir) -> None:
    status.write_status(RankStatus(rank=1, step=3, stage="Training"))
    status.write_status(RankStatus(rank=0, step=4, stage="Training", loss=float("nan"), grad_norm=1.0))
    progress = json.loads(get(port, "/progress")[1])
    assert progress["step"] == 4
    assert "gradNorm" not in progress, "/progress is the contract's, not the metrics'"
    assert progress.get("loss") is None, "JSON has no NaN"


def test_progress_tells_what_only_the_launcher_knows(pod: PodAttempt, port: int, status: StatusDir) -> None:
    pod.step_down(1, out_of_memory(4))
    pod.begin()
    for _ in range(2):
        progress = json.loads(get(port, "/progress")[1])
        assert progress["restarts"] == 1
        assert progress["changes"] == ["microBatchSize 4 → 2, gradientAccumulationSteps 1 → 2: out of memory at step 5"]
        status.write_status(RankStatus(rank=0, step=4, stage="Training"))
    assert progress["step"] == 4


def test_metrics_tell_what_the_probe_measured(pod: PodAttempt, port: int) -> None:
    assert "hone_train_probe" not in get(port, "/metrics")[1]
    pod.measured = save_probe(pod.config, level=0, peak_bytes=4096, seconds_per_step=0.5)
    body = get(port, "/metrics")[1]
    assert "hone_train_probe_memory_peak_bytes 4096.0" in body
    assert "hone_train_probe_step_duration_seconds 0.5" in body


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_it_listens_on_both_families(port: int) -> None:
    for host_name in ("127.0.0.1", "[::1]"):
        with urllib.request.urlopen(f"http://{host_name}:{port}/healthz", timeout=5) as answer:
            assert answer.status == 200


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
