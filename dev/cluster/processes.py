"""Background processes that outlive the shell that started them, and are ended only when they surely are ours.

Each has a file `<name>.json` with its process ID, its start time and the machine's boot ID: together they name one
process for good, so a process that reuses an ID is never taken for ours.
"""

import contextlib
import json
import os
import signal
import subprocess
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dev.cluster import paths
from dev.cluster.say import wait_until

# A log above this is put aside, over the last one put aside, when its process is started again.
LOG_BYTES = 20 << 20


@dataclass(frozen=True)
class Identity:
    """What names one process for good; `start_time` is in clock ticks since boot."""

    pid: int
    start_time: int
    boot_id: str


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parse_stat(text: str) -> tuple[str, int]:
    """State letter and start time of a /proc/<pid>/stat line; the command in it may hold spaces and parentheses."""
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[19])


def identify(pid: int) -> Identity | None:
    """The identity of a living process; None for one that is gone or a zombie."""
    try:
        state, start_time = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else Identity(pid, start_time, boot_id())


class Processes:
    """Background processes whose files are in `pids` and whose output is in `logs`. Calls `started` with new ones."""

    def __init__(self, pids: Path, logs: Path, started: Callable[[Identity], None] = lambda identity: None):
        self.pids, self.logs, self._started = pids, logs, started

    def running(self, name: str) -> Identity | None:
        """The process of that name, or None when it has ended or never was."""
        try:
            known = Identity(**json.loads((self.pids / f"{name}.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return known if identify(known.pid) == known else None

    def names(self) -> list[str]:
        return sorted(file.stem for file in self.pids.glob("*.json")) if self.pids.is_dir() else []

    def start(
        self,
        name: str,
        command: Iterable[str | Path],
        environment: Mapping[str, str] | None = None,
        files: Mapping[Path, str] | None = None,
    ) -> None:
        """Start `command` in a session of its own, without a terminal, unless it runs; appends to its log.

        `files` are its configuration, written only when it is started: kube-proxy ends when its own changes.
        """
        if self.running(name):
            return
        for path, text in (files or {}).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.pids.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.log(name)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.rename(log.with_suffix(".log.old"))
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **paths.no_proxy(), **(environment or {})},
            )
        identity = identify(process.pid)
        if identity is None:
            raise RuntimeError(f"{name} ended at once:\n{self.tail(name)}")
        self._started(identity)
        temporary = self.pids / f".{name}.tmp"
        temporary.write_text(json.dumps(asdict(identity)))
        temporary.rename(self.pids / f"{name}.json")

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a process's log, the long ones shortened."""
        try:
            text = self.log(name).read_text(errors="replace")
            return "\n".join(textwrap.shorten(line, 500, placeholder=" ...") for line in text.splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def wait_ready(self, name: str, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Poll until `condition()` holds.

        Raises RuntimeError with the end of its log when the process dies first or time is up.
        """

        def settled() -> bool:
            if not self.running(name):
                raise RuntimeError(f"{name} ended while starting; the end of {self.log(name)}:\n{self.tail(name)}")
            return bool(condition())

        try:
            wait_until(settled, f"{name} being ready", seconds)
        except TimeoutError as error:
            raise RuntimeError(f"{error} The end of {self.log(name)}:\n{self.tail(name)}") from None

    def stop(self, name: str, grace: float = 10.0) -> bool:
        """End the process of that name if it is still ours: SIGTERM, SIGKILL after `grace` seconds. True if it ran."""
        identity = self.running(name)
        if identity:
            end(identity, grace)
        (self.pids / f"{name}.json").unlink(missing_ok=True)
        return identity is not None


def end(identity: Identity, grace: float = 10.0) -> None:
    """End one process, checked by its start time before each signal; returns when it is gone."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        if not _signal(identity, number):
            return
        try:
            wait_until(lambda: _gone(identity), f"the end of process {identity.pid}", seconds, interval=0.02)
            return
        except TimeoutError:
            if number == signal.SIGKILL:
                raise


def _signal(identity: Identity, number: int) -> bool:
    """Send through a pidfd, which stays with this process even if its ID is reused meanwhile."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if identify(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)


def _gone(identity: Identity) -> bool:
    # A child of this very command must be reaped, or it stays as a zombie until the command ends.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(identity.pid, os.WNOHANG)
    return identify(identity.pid) != identity
