"""Faults strike real ranks under real launchers: each ends in its class, says why, and the next attempt continues."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from launchers import START_SECONDS, Launcher, free_port, newest_step

from hone.contract.exits import FailureClass
from hone.contract.results import StepResult
from hone.contract.runconfig import Attempt, RunConfig
from hone_trainer.protocol.verdicts import merge
from hone_trainer.training import checkpoint

pytestmark = pytest.mark.timeout(1800)

RUN = {"steps": 24, "every": 6, "processes": 2}
MEMORY_LIMIT = 3 << 30
"""Bytes for a pod of one rank, which takes 1 GiB; the fault takes more than the rest."""

Start = Callable[..., Launcher]


def steps(config: RunConfig) -> list[int]:
    """Steps of all checkpoints, whole or not."""
    return sorted(int(path.name.partition("-")[2]) for path in checkpoint.checkpoints_dir(config).glob("checkpoint-*"))


def history(config: RunConfig, figure: str) -> dict[int, float]:
    """A figure of each logged step, as the newest checkpoint has it."""
    newest = checkpoint.newest(config)
    assert newest is not None
    lines = json.loads((newest[0] / "trainer_state.json").read_text())["log_history"]
    return {line["step"]: line[figure] for line in lines if figure in line}


@pytest.mark.train
def test_numbers_gone_bad_end_the_run_which_goes_on_from_before_at_half_the_rate(tmp_path: Path, start: Start) -> None:
    config = tiny.make_run(tmp_path, **RUN)
    launcher = start(tmp_path, "first", faults=f"nan@11:rank=1:once={tmp_path / 'struck'}")
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.verdict.failure_class) == (66, FailureClass.DIVERGED), launcher.log()
    assert "3 steps in a row" in result.verdict.message
    assert (newest_step(config), steps(config)) == (6, [6]), "none was even begun at step 12"

    second = Attempt(number=2, learning_rate_factor=0.5)
    launcher = start(tmp_path, "second", HONE_ATTEMPT=second.to_json())
    progress = launcher.until(lambda progress: progress["stage"] == "Training")
    assert progress["resumedFromStep"] == 6
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step) == (0, 24), launcher.log()
    assert result.changes == ["learningRate 0.01 → 0.005: an earlier attempt diverged"]
    rates, planned = history(config, "learning_rate"), planned_rates()
    for step in range(1, 25):
        factor = 1.0 if step <= 6 else 0.5
        assert rates[step] == pytest.approx(factor * planned[step], rel=1e-6), f"step {step}"


def planned_rates(total: int = 24, peak: float = 1e-2) -> dict[int, float]:
    """The rate of each step, counted from 1, by the schedule that `tiny.make_run` plans."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = get_cosine_schedule_with_warmup(optimizer, -(-total // 10), total)
    rates = {}
    for step in range(1, total + 1):
        rates[step] = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
    return rates


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Mounts a file system of its own at a directory, and returns a file in it to fill it with. Needs root.

    Ask for it before `start`, so that no launcher uses it any more when it goes; for `memory_limit` too.
    """
    mounted: list[Path] = []

    def mount(directory: Path) -> Path:
        directory.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(directory)], check=True)
        mounted.append(directory)
        return directory / "filler"

    yield mount
    for directory in mounted:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.train
def test_a_full_disk_costs_no_checkpoint_that_was_whole(
    tmp_path: Path, small_disk: Callable[[Path], Path], start: Start
) -> None:
    config = tiny.make_run(tmp_path, steps=12, every=6)
    filler = small_disk(checkpoint.checkpoints_dir(config))
    mark = tmp_path / "saved"
    launcher = start(tmp_path, "first", faults=f"hold@marked=6:once={mark}")
    launcher.until_true(Path(f"{mark}.rank0").exists)
    fill(filler, leave=16 << 10)
    Path(f"{mark}.go").touch()
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.verdict.failure_class) == (70, FailureClass.CRASHED), launcher.log()
    assert "spec.workspace.size" in (result.verdict.hint or ""), result.verdict
    assert newest_step(config) == 6, "the old checkpoint is whole"

    # Someone makes room: training continues from there, and nothing of the half checkpoint is in the new one.
    filler.unlink()
    launcher = start(tmp_path, "second")
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step) == (0, 12), launcher.log()
    assert '"resumedFromStep": 6' in launcher.log()
    assert steps(config) == [6, 12]


def fill(filler: Path, leave: int) -> None:
    """Write a file until only so many bytes are left on its file system."""
    there = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        for _ in range((there.f_bavail * there.f_frsize - leave) // 4096):
            file.write(b"x" * 4096)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("segv@3:rank=1", "rank 1 was killed by SIGSEGV", id="segfault"),
        pytest.param("kill@4:rank=0", "rank 0 was killed by SIGKILL", id="kill"),
        pytest.param("error@5:rank=1", "ValueError: the tensors have fallen out of their frame", id="error"),
        pytest.param("error@torch:rank=0", "ValueError: the tensors have fallen out of their frame", id="import"),
        pytest.param("enospc@weights=6:rank=0", "No space left on device", id="enospc"),
    ],
)
def test_a_crash_names_its_rank_and_its_cause(fault: str, words: str, tmp_path: Path, start: Start) -> None:
    config = tiny.make_run(tmp_path, **RUN)
    launcher = start(tmp_path, "pod", faults=fault)
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.verdict.failure_class) == (70, FailureClass.CRASHED), launcher.log()
    assert words in result.verdict.message
    assert result.verdict.rank == int(fault.partition("rank=")[2])
    assert newest_step(config) == 0


@pytest.mark.soak
def test_an_error_in_one_pod_is_not_lost_among_those_who_lost_their_peer(tmp_path: Path, start: Start) -> None:
    tiny.make_run(tmp_path, steps=24, every=6, nodes=2)
    meeting = {"HONE_MASTER": "127.0.0.1", "HONE_MASTER_PORT": str(free_port())}
    pods = [
        start(tmp_path, f"pod-{node}", faults="error@5:rank=1", JOB_COMPLETION_INDEX=str(node), **meeting)
        for node in (0, 1)
    ]
    (first, told_first), (second, told_second) = (pod.wait(START_SECONDS) for pod in pods)
    assert (first, told_first.verdict.failure_class) == (68, FailureClass.COMMUNICATION), pods[0].log()
    assert (second, told_second.verdict.failure_class) == (70, FailureClass.CRASHED), pods[1].log()
    cause = merge([told_first.verdict, told_second.verdict])
    assert (cause.rank, cause.node) == (1, 1)
    assert "the tensors have fallen out of their frame" in cause.message


@pytest.fixture
def memory_limit() -> Iterator[Callable[[int], tuple[str, ...]]]:
    """Makes a memory cgroup, and a command that runs another in it as a container does. Needs root."""
    groups: list[Path] = []

    def limit(number_of_bytes: int) -> tuple[str, ...]:
        v1 = Path("/sys/fs/cgroup/memory")
        root = v1 if v1.is_dir() else Path("/sys/fs/cgroup")
        groups.append(root / f"hone-test-{os.getpid()}")
        groups[-1].mkdir()
        name = "memory.limit_in_bytes" if v1.is_dir() else "memory.max"
        (groups[-1] / name).write_text(str(number_of_bytes))
        # A container sees its own cgroup where the host has the root one.
        script = f'echo $$ > {groups[-1]}/cgroup.procs && mount --bind {groups[-1]} {root} && exec "$@"'
        return ("unshare", "--mount", "sh", "-c", script, "sh")

    yield limit
    for group in groups:
        deadline = time.monotonic() + 60
        # What was killed just now may still be on its way out.
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        group.rmdir()


@pytest.mark.soak
def test_a_pod_over_its_memory_limit_is_told_from_one_whose_gpu_is_full(
    tmp_path: Path, memory_limit: Callable[[int], tuple[str, ...]], start: Start
) -> None:
    config = tiny.make_run(tmp_path, steps=24, every=6)
    fault = f"hostmem@9:mib=4096:once={tmp_path / 'struck'}"
    launcher = start(tmp_path, "first", faults=fault, prefix=memory_limit(MEMORY_LIMIT))
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.verdict.failure_class) == (137, FailureClass.HOST_OUT_OF_MEMORY), launcher.log()
    assert "memory limit" in result.verdict.message
    assert "spec.compute.resources" in result.verdict.hint
    assert newest_step(config) == 6


@pytest.mark.soak
def test_a_gang_that_hung_goes_on_from_its_checkpoint(tmp_path: Path, start: Start) -> None:
    config = tiny.make_run(tmp_path, steps=12, every=6, processes=2, hang_floor_seconds=15.0)
    launcher = start(tmp_path, "first", faults=f"sleep@9:rank=1:once={tmp_path / 'struck'}")
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.verdict.failure_class, result.verdict.rank) == (67, FailureClass.HUNG, 1), launcher.log()
    assert "in _sleep" in Path(config.paths.run, "stacks-attempt-1-node-0.txt").read_text()
    assert newest_step(config) == 6
    code, result = start(tmp_path, "second").wait(START_SECONDS)
    assert (code, result.final_step) == (0, 12)


@pytest.mark.soak
def test_pods_without_memory_go_on_a_level_lower_in_the_next_attempt(tmp_path: Path, start: Start) -> None:
    config = tiny.make_run(tmp_path, steps=12, every=6, nodes=2, micro_batch=4)

    def attempt(name: str, **environment: str) -> list[tuple[int, StepResult]]:
        environment |= {"HONE_MASTER": "127.0.0.1", "HONE_MASTER_PORT": str(free_port())}
        environment["HONE_TEST_FAULT"] = "oom@9:above=2:rank=1"
        pods = [start(tmp_path, f"{name}-{node}", JOB_COMPLETION_INDEX=str(node), **environment) for node in (0, 1)]
        return [pod.wait(START_SECONDS) for pod in pods]

    (_, other), (code, result) = attempt("first")
    assert (code, result.verdict.failure_class, result.verdict.final) == (65, FailureClass.OUT_OF_MEMORY, False)
    assert merge([other.verdict, result.verdict]).rank == 1
    assert newest_step(config) == 6
    second = Attempt(number=2, memory_fallback_level=1).to_json()
    for code, result in attempt("second", HONE_ATTEMPT=second):
        assert (code, result.final_step, result.restarts) == (0, 12, 0)
        assert any(change.startswith("microBatchSize 4 → 2") for change in result.changes), result.changes
