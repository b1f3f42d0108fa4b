"""Limits of time and memory: of a call within a process, and of a whole step, which a parent process ends with words.

A step runs in a child of PID 1. Whatever its input makes it do, to loop inside a library or to allocate without end,
the parent is not part of it and writes the result: which file the step was reading, and how long it may take.
"""

import contextlib
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hone.contract.exits import FailureClass, exit_code
from hone.contract.results import StepResult
from hone.contract.verdict import Verdict
from hone_trainer.protocol import host
from hone_trainer.protocol.errors import MAX_MESSAGE, clip
from hone_trainer.protocol.results import write_result

MEMORY_SHARE = 0.9
"""Of the container's memory, what the step's own may take: at its limit the kernel ends the whole container."""
_AGAIN_SECONDS = 1.0
_POLL_SECONDS = 0.1
_MEMORY_FIELDS = {
    "prepare": "spec.prepare.resources.limits.memory",
    "finish": "spec.compute.resources.limits.memory",
    "publish": "the limits of the namespace",
    "inspect": "the limits of the namespace",
    "fetch": "spec.resources.limits.memory",
    "analyze": "the limits of the namespace",
}
BROKEN = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
"""How a library ends a process on input that it did not expect."""
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)
"""What the step is to receive though its parent is the container's process."""


class TooLong(BaseException):
    """A call took longer than its limit. No Exception: the caller's own `except Exception` would swallow it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what runs within by `TooLong` after so many seconds; only the main thread can be ended so.

    Python code and regular expressions end, a library that runs without Python does not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    try:
        # Again and again, for code that catches everything.
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if ended:
        raise TooLong


class _Note:
    """What a step tells its parent, in memory that both share: what it reads, and how much time that adds."""

    _HEAD = struct.Struct("dI")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, seconds: float, place: str) -> None:
        """Replace the note."""
        text = place.encode(errors="replace")[: mmap.PAGESIZE - self._HEAD.size]
        self._memory[: self._HEAD.size + len(text)] = self._HEAD.pack(seconds, len(text)) + text

    def read(self) -> tuple[float, str]:
        """The seconds that were added, and the place."""
        seconds, length = self._HEAD.unpack_from(self._memory)
        return seconds, self._memory[self._HEAD.size : self._HEAD.size + length].decode(errors="ignore")


_note = _Note()


def reading(field: str, name: str) -> None:
    """Say what the step reads from now on: the field of the spec, and the file. Empty: nothing of the user's."""
    _note.write(_note.read()[0], f"{field}\n{name}" if field else "")


def allow(more: float) -> None:
    """Add so many seconds to the time that the step may take, for input of a known size."""
    seconds, place = _note.read()
    _note.write(seconds + more, place)


def _nothing() -> None:
    """What the parent of a step does in addition."""


def supervised(step: str, work: Callable[[], int], seconds: float, attend: Callable[[], None] = _nothing) -> int:
    """Run a step in a child process; returns its exit code.

    Args:
        step: its name.
        work: the step, which writes its own result unless it is ended here.
        seconds: how long it may take, in addition to what it adds by `allow`.
        attend: called once in this process when the child has begun, to start what serves meanwhile.
    """
    begin, memory = time.monotonic(), int(host.memory_limit() * MEMORY_SHARE)
    # Held back until they can be passed on: a signal in between would end this process alone.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        # Its own handlers, buffers and exit code: a child never returns into its parent's code.
        os._exit(_code_of(work))
    passed_on: set[int] = set()

    def pass_on(number: int, _: object) -> None:
        passed_on.add(number)
        _send(child, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, former)
    attend()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code >= 0:
                return code
            # While a step still imports its libraries, a signal ends it by itself.
            return exit_code(FailureClass.PREEMPTED) if -code in passed_on else _end(step, killed(step, -code))
        most = seconds + _note.read()[0]
        breach = None
        if time.monotonic() - begin > most:
            breach = _took_too_long(step, most)
        elif (host.anonymous_bytes(child) or 0) > memory:
            breach = _took_too_much(step, memory)
        if breach:
            _send(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return _end(step, breach)
        time.sleep(_POLL_SECONDS)


def _code_of(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        import logging
        import sys

        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()


def _send(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _took_too_long(step: str, seconds: float) -> Verdict:
    field, name = _place()
    minutes = max(1, round(seconds / 60))
    if field:
        return _verdict(
            FailureClass.BAD_INPUT,
            f"{field}: {name} did not end within {minutes} min, far more than its size needs",
            "Check what the file expands to, and the chat template, for loops that do not end.",
        )
    message = f"{step} did not end within {minutes} min, which grows with the size of its input"
    return _verdict(FailureClass.DEADLINE_EXCEEDED, message, "The pod's log shows what it was doing.")


def _took_too_much(step: str, memory: int) -> Verdict:
    field, name = _place()
    size = f"{memory / 2**30:.1f} GiB"
    if field:
        return _verdict(
            FailureClass.BAD_INPUT,
            f"{field}: {name} takes more than {size} of memory to read",
            f"Check what the file expands to, or raise {_MEMORY_FIELDS[step]}.",
        )
    return _verdict(
        FailureClass.HOST_OUT_OF_MEMORY,
        f"{step} needs more than {size}, {MEMORY_SHARE:.0%} of the container's memory",
        f"Raise {_MEMORY_FIELDS[step]}.",
    )


def killed(step: str, number: int) -> Verdict:
    """Why a step failed of which a process was ended by a signal."""
    field, name = _place()
    how = signal.Signals(number).name
    if number in BROKEN and field:
        return _verdict(
            FailureClass.BAD_INPUT, f"{field}: {name} cannot be read: the reader ended by {how}", "Create it again."
        )
    if number == signal.SIGKILL:
        return _verdict(FailureClass.HOST_OUT_OF_MEMORY, f"{step} was killed by the kernel: its memory limit", None)
    return _verdict(FailureClass.CRASHED, f"{step} ended by {how}; see the pod's log", None)


def _place() -> tuple[str, str]:
    field, _, name = _note.read()[1].partition("\n")
    return field, name


def _verdict(cls: FailureClass, message: str, hint: str | None) -> Verdict:
    code = exit_code(cls)
    return Verdict(failure_class=cls, message=clip(message, MAX_MESSAGE), hint=hint, exit_code=code, time=time.time())


def _end(step: str, verdict: Verdict) -> int:
    write_result(StepResult(step=step, verdict=verdict))
    return verdict.exit_code or 1
