"""What ranks and launcher exchange, as small files in one directory of the pod's own /tmp.

rank-<n>.json       rank n's RankStatus; replaced at most once a second
beats-<n>.json      what rank n has done of its step (`hone_trainer/protocol/beats.py`); as often
verdict-<n>.json    why rank n ended, where it can say so
stacks-<n>.txt      rank n's stacks, once it was sent SIGUSR1
failures.json       the ranks that torchrun saw die: exit codes and times
stop                raised by the launcher on SIGTERM, or once the budget is used up; every rank checks it at each step
"""

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hone.contract.base import Model
from hone.contract.progress import Progress
from hone.contract.verdict import Verdict
from hone_trainer.protocol.files import write_atomic

STATUS_DIR_ENV = "HONE_STATUS_DIR"
"""Environment variable with the directory; the launcher creates it and passes it to the ranks."""

SIGTERM, BUDGET = "SIGTERM", "the budget of the job, which is used up,"
"""What may stop a pod."""

M = TypeVar("M", bound=Model)


class RankStatus(Progress):
    """A rank's progress, with what only metrics show."""

    rank: int = 0
    pid: int = 0
    grad_norm: float | None = None
    tokens: int = 0
    """Non-padding tokens of this attempt, over all ranks."""
    checkpoint_seconds: float | None = None
    """How long the newest checkpoint took to write."""
    gpu_peak_bytes: int | None = None
    """Most GPU memory that this rank's tensors took, where it has a GPU."""
    gpu_total_bytes: int | None = None
    """What its GPU has."""


class Beat(Model):
    """A rank's heartbeat."""

    rank: int
    count: int
    """Parts of steps that it has done."""
    usual_seconds: float | None = None
    """What the slowest kind of them usually takes; None before the first step is done."""


class StatusDir:
    """The directory, from either side."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stop_flag = directory / "stop"
        self.failures_file = directory / "failures.json"

    @classmethod
    def from_env(cls) -> "StatusDir":
        """The directory that the launcher named.

        Raises:
            KeyError: there is no launcher.
        """
        return cls(Path(os.environ[STATUS_DIR_ENV]))

    def stop_raised(self) -> bool:
        """Whether the pod was asked to stop."""
        return self.stop_flag.exists()

    def raise_stop(self, by: str = SIGTERM) -> None:
        """Ask every rank to save and stop at its next step; `by` says what does."""
        self.stop_flag.write_text(by)

    def stopped_by(self) -> str:
        """What asks the pod to stop; on other nodes it can be another thing than here."""
        try:
            return self.stop_flag.read_text() or SIGTERM
        except OSError:
            return "another pod of the gang"

    def clear(self) -> None:
        """Forget the ranks, so that others can be started. A stop flag stays."""
        for pattern in ("rank-*.json", "beats-*.json", "verdict-*.json", "stacks-*.txt", self.failures_file.name):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)

    def stacks_file(self, rank: int) -> Path:
        """Where the rank writes the stacks of all its threads on SIGUSR1."""
        return self.directory / f"stacks-{rank}.txt"

    def write_status(self, status: RankStatus) -> None:
        """Replace the rank's status."""
        write_atomic(self.directory / f"rank-{status.rank}.json", status.to_json().encode())

    def statuses(self) -> dict[int, RankStatus]:
        """The newest status of each rank of this pod, by rank; unreadable ones are left out."""
        return {status.rank: status for status in self._read("rank-*.json", RankStatus)}

    def write_beat(self, beat: Beat) -> None:
        """Replace the rank's heartbeat."""
        write_atomic(self.directory / f"beats-{beat.rank}.json", beat.to_json().encode())

    def beats(self) -> dict[int, Beat]:
        """The newest heartbeat of each rank of this pod, by rank."""
        return {beat.rank: beat for beat in self._read("beats-*.json", Beat)}

    def write_verdict(self, rank: int | None, verdict: Verdict) -> None:
        """Record why the rank ends; None: torchrun itself does."""
        name = "torchrun" if rank is None else str(rank)
        write_atomic(self.directory / f"verdict-{name}.json", verdict.to_json().encode())

    def verdicts(self) -> list[Verdict]:
        """The verdicts of this pod's ranks."""
        return self._read("verdict-*.json", Verdict)

    def write_failures(self, failures: dict[int, dict[str, float]]) -> None:
        """Record the ranks that torchrun saw die: {rank: {exitCode, time}}."""
        write_atomic(self.failures_file, json.dumps(failures).encode())

    def failures(self) -> dict[int, dict[str, float]]:
        """The ranks that torchrun saw die; empty where it did not say."""
        try:
            return {int(rank): failure for rank, failure in json.loads(self.failures_file.read_text()).items()}
        except (OSError, ValueError):
            return {}

    def _read(self, pattern: str, model: type[M]) -> list[M]:
        records = []
        for path in sorted(self.directory.glob(pattern)):
            try:
                records.append(model.model_validate_json(path.read_text()))
            except (OSError, ValidationError):
                continue
        return records
