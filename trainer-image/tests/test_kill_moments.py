"""A gang that dies or is stopped at any moment of its run: it continues, and ends with the weights of one left alone.

Moments are places in the run at which a rank holds still until it is killed, or until SIGTERM has arrived, so that
each is met exactly. A sequence of them strikes one run, attempt after attempt. All gangs are of two ranks: in one pod,
where ranks and whole pods are killed; in two, where one pod gets SIGTERM.
"""

import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from launchers import START_SECONDS, Launcher, free_port, largest_difference, newest_step

from hone.contract.exits import FailureClass
from hone.contract.methods import MethodType
from hone.contract.runconfig import RunConfig
from hone_trainer.training import checkpoint

pytestmark = pytest.mark.timeout(1800)

STEPS, EVERY, KEEP = 24, 6, 2
RUN = {"steps": STEPS, "every": EVERY, "keep": KEEP, "accumulation": 2, "evaluate": 8}
GANGS: dict[str, dict[str, Any]] = {
    "ddp": {"method": MethodType.LORA, "zero_stage": 0},
    "zero2": {"method": MethodType.FULL, "zero_stage": 2},
    "zero3": {"method": MethodType.FULL, "zero_stage": 3},
}

NOT_BEGUN = ("python", "torch")
"""Places at which a rank has told nothing yet."""

Start = Callable[..., Launcher]


@dataclass(frozen=True)
class Moment:
    """Where a rank holds still, as faults/fault_injection.py names places, and which; what is then ended."""

    place: str
    rank: int
    whole_pod: bool = False

    @property
    def name(self) -> str:
        """The place's name, without its step."""
        return self.place.partition("=")[0]

    @property
    def step(self) -> int:
        """The place's step; 0 where it has none."""
        return int(self.place.partition("=")[2] or 0)

    def fault(self, mark: Path) -> str:
        """The fault that makes the rank hold still there, in the first start that comes to it."""
        return f"hold@{self.place}:rank={self.rank}:once={mark}"

    def reached(self, mark: Path) -> bool:
        """Whether the rank holds still."""
        return mark.with_name(f"{mark.name}.rank{self.rank}").exists()


def pod(place: str, rank: int = 0) -> Moment:
    """The whole pod, launcher included, dies while the rank is there."""
    return Moment(place, rank, whole_pod=True)


KILLS = {
    "zero2-ci": [pod("optimizer=6"), Moment("step=9", 1), Moment("end", 0)],
    "ddp-a": [Moment("python", 1), pod("step=1"), Moment("weights=6", 0), pod("marked=6"), Moment("step=24", 0)],
    "ddp-b": [pod("torch"), Moment("step=6", 1), Moment("save=12", 1), pod("evaluate=16"), Moment("mark=24", 0)],
    "zero2": [
        pod("step=3", 1),
        Moment("optimizer=12", 1),
        Moment("torch", 1),
        Moment("evaluated=16", 1),
        pod("marked=24"),
    ],
    "zero3-a": [pod("weights=6"), Moment("step=7", 0), Moment("optimizer=12", 0), Moment("evaluate=16", 1), pod("end")],
    "zero3-b": [pod("python"), Moment("save=6", 0), Moment("step=13", 1), Moment("marked=18", 0), Moment("end", 1)],
}
"""Sequences of kills, by gang."""
STOPS = {
    "zero2-ci": [Moment("step=9", 1), Moment("weights=18", 0)],
    "ddp": [Moment("python", 1), Moment("torch", 0), Moment("save=6", 1), Moment("step=24", 0)],
    "zero3": [Moment("step=6", 1), Moment("evaluate=8", 0), Moment("mark=12", 0), Moment("end", 1)],
}
"""Sequences of SIGTERM to the pod of the rank."""


def slices(sequences: dict[str, list[Moment]]) -> list[Any]:
    """One set of parameters per sequence; those for every build are marked `train`, the others `soak`."""
    return [
        pytest.param(
            name.partition("-")[0],
            moments,
            id=name,
            marks=pytest.mark.train if name.endswith("-ci") else pytest.mark.soak,
        )
        for name, moments in sequences.items()
    ]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunConfig]:
    """The runs that were left alone, by gang; each is made when it is first asked for."""
    runs: dict[str, RunConfig] = {}

    def run(gang: str) -> RunConfig:
        if gang not in runs:
            root = tmp_path_factory.mktemp(gang)
            runs[gang] = tiny.make_run(root, processes=2, **RUN, **GANGS[gang])
            launcher = Launcher(root, "alone")
            try:
                launcher.until(lambda progress: progress["stage"] == "Training" and progress["step"] >= 2)
                _check_figures(launcher)
                code, result = launcher.wait(START_SECONDS)
            finally:
                launcher.kill()
                launcher.process.wait()
            assert (code, result.final_step, result.verdict) == (0, STEPS, None), launcher.log()
        return runs[gang]

    return run


@pytest.mark.parametrize(("gang", "moments"), slices(KILLS))
def test_a_killed_gang_ends_as_if_nothing_had_happened(
    gang: str, moments: list[Moment], alone: Callable[[str], RunConfig], tmp_path: Path, start: Start
) -> None:
    whole = alone(gang)
    config = tiny.make_run(tmp_path, processes=2, shared=root_of(whole), **RUN, **GANGS[gang])
    done = 0
    for number, moment in enumerate(moments):
        mark = tmp_path / f"moment-{number}"
        launcher = start(tmp_path, f"attempt-{number}", faults=moment.fault(mark))
        launcher.until_true(lambda moment=moment, mark=mark: moment.reached(mark))
        check_resumed(launcher, moment, done)
        if moment.whole_pod:
            launcher.kill()
            launcher.process.wait()
        else:
            launcher.kill(RANK=str(moment.rank))
            code, result = launcher.wait()
            assert (code, result.verdict.failure_class) == (70, FailureClass.CRASHED), launcher.log()
            assert f"rank {moment.rank} was killed by SIGKILL" in result.verdict.message
        done = max(done, kept_by_a_kill(moment))
        assert newest_step(config) == done, f"after {moment}"
    finish(start(tmp_path, "last"), config, whole)


@pytest.mark.parametrize(("gang", "moments"), slices(STOPS))
def test_a_gang_of_which_one_pod_is_stopped_ends_as_if_nothing_had_happened(
    gang: str, moments: list[Moment], alone: Callable[[str], RunConfig], tmp_path: Path, start: Start
) -> None:
    whole = alone(gang)
    config = tiny.make_run(tmp_path, nodes=2, shared=root_of(whole), **RUN, **GANGS[gang])

    def attempt(name: str, faults: str = "") -> list[Launcher]:
        meeting = {"HONE_MASTER": "127.0.0.1", "HONE_MASTER_PORT": str(free_port())}
        return [
            start(tmp_path, f"{name}-{node}", faults=faults, JOB_COMPLETION_INDEX=str(node), **meeting)
            for node in (0, 1)
        ]

    done = 0
    for number, moment in enumerate(moments):
        mark = tmp_path / f"moment-{number}"
        pods = attempt(f"attempt-{number}", moment.fault(mark))
        stopped, other = pods[moment.rank], pods[1 - moment.rank]
        stopped.until_true(lambda moment=moment, mark=mark: moment.reached(mark))
        check_resumed(pods[0], moment, done)
        stopped.process.send_signal(signal.SIGTERM)
        stopped.until_true(lambda stopped=stopped: stopped.stop_raised() or stopped.process.poll() is not None)
        mark.with_name(f"{mark.name}.go").touch()
        ends = stopped.wait()
        if moment.name in NOT_BEGUN:
            # It ends before the pods have met; the Job's controller would now end the other one.
            other.kill()
            other.process.wait()
            outcomes = [ends]
        else:
            outcomes = [ends, other.wait()]
            done = kept_by_a_stop(moment)
        for code, result in outcomes:
            if done == STEPS:
                assert (code, result.verdict) == (0, None), stopped.log() + other.log()
            else:
                assert (code, result.verdict.failure_class) == (75, FailureClass.PREEMPTED), stopped.log()
        assert newest_step(config) == done, f"after {moment}"
    first, second = attempt("last")
    finish(first, config, whole)
    assert second.wait()[0] == 0


def kept_by_a_kill(moment: Moment) -> int:
    """Step of the checkpoint that must be whole after a kill at the moment: none was lost, none was half."""
    if moment.name == "end":
        return STEPS
    if moment.name == "marked":
        return moment.step
    return max(0, moment.step - 1) // EVERY * EVERY


def kept_by_a_stop(moment: Moment) -> int:
    """Step of the checkpoint that a gang leaves on SIGTERM: of the step it was in or evaluated, or of the next one."""
    if moment.name == "end":
        return STEPS
    return moment.step if moment.name in ("step", "evaluate") else moment.step + 1


def check_resumed(launcher: Launcher, moment: Moment, done: int) -> None:
    """See that the attempt started from the newest whole checkpoint, where it has come far enough to tell."""
    if moment.name not in NOT_BEGUN:
        progress = launcher.until(lambda progress: progress["stage"] != "Starting" or progress["step"] == done)
        assert progress.get("resumedFromStep", 0) == done, f"at {moment}"


def finish(launcher: Launcher, config: RunConfig, whole: RunConfig) -> None:
    """Let the run end, and compare it with the one left alone."""
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step, result.verdict) == (0, STEPS, None), launcher.log()
    left = sorted(path.name for path in checkpoint.checkpoints_dir(config).iterdir())
    assert left == sorted(path.name for path, _ in checkpoint.whole(checkpoint.checkpoints_dir(config)))
    # A gang that died before it could remove the oldest, and had nothing left to do, leaves one more.
    assert len(left) <= KEEP + 1
    difference = largest_difference(whole, config)
    print(f"largest difference of weights: {difference}")
    assert difference == 0.0


def root_of(config: RunConfig) -> Path:
    """The directory that `tiny.make_run` made the run in."""
    return Path(config.paths.output).parent


def _check_figures(launcher: Launcher) -> None:
    code, metrics = launcher.get("/metrics")
    assert code == 200
    for rank in (0, 1):
        assert f'hone_train_step{{rank="{rank}"}}' in metrics
    if promtool := shutil.which("promtool"):
        checked = subprocess.run([promtool, "check", "metrics"], input=metrics, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
