"""Work on chunks of rows by several processes, with the same results in the same order however many there are."""

import ctypes
import os
import pickle
import resource
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hone_trainer.protocol import host, limits

T = TypeVar("T")
R = TypeVar("R")

ALONE = 2
"""Chunks that this process does itself where there are no more, as in most data, which would only wait for others."""
WORKER_BYTES = 512 << 20
"""Least memory of a worker, in addition to what it shares with this process: it holds one chunk, and its results."""
_AHEAD = 4
"""Chunks that may be done before their turn, for each worker."""
_SET_PARENT_DEATH_SIGNAL = 1


class WorkerDied(Exception):
    """A worker was ended by a signal.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"a worker process was ended by {signal.Signals(number).name}")
        self.number = number


def count_of_workers() -> int:
    """How many processes to use: one for each CPU, if there is memory for as many."""
    return max(1, min(host.cpus(), _free_memory() // WORKER_BYTES))


def _free_memory() -> int:
    return max(0, int(host.memory_limit() * limits.MEMORY_SHARE) - host.own_memory("VmRSS"))


def in_order(work: Callable[[T], R], tasks: Iterable[T], count: int | None = None) -> Iterator[R]:
    """The result of each task, in the order of the tasks.

    Args:
        work: what is done with a task. It may have state of its own only within a task.
        tasks: read in this process, one ahead of each worker.
        count: processes; None: as `count_of_workers` says.

    Raises:
        WorkerDied: a worker was ended by a signal.
        Exception: what `work` raised, for the first task that it did so for; later results are dropped.
    """
    pending = iter(tasks)
    head = [following for _ in range(ALONE + 1) if (following := _next(pending)) is not None]
    alone = len(head) <= ALONE or any(failed for failed, _ in head)
    count = 1 if alone else count_of_workers() if count is None else count
    if count == 1:
        for failed, task in head:
            if failed:
                raise task
            yield work(task)
        yield from map(work, pending)
        return
    memory = max(WORKER_BYTES, _free_memory() // count)
    workers = [_Worker(work, memory) for _ in range(count)]
    try:
        yield from _results(workers, chain((task for _, task in head), pending))
    finally:
        for worker in workers:
            worker.end()


def _results(workers: list["_Worker"], tasks: Iterator[Any]) -> Iterator[Any]:
    """The results in order. A worker gets its next task only once it has sent a result, so that no two of these
    processes ever wait for each other to read."""
    busy: dict[Connection, tuple[_Worker, int]] = {}
    done: dict[int, tuple[bool, Any]] = {}
    idle, turn, number = list(workers), 0, 0
    following = _next(tasks)
    while following is not None or busy or done:
        while idle and following is not None and number < turn + _AHEAD * len(workers):
            failed, task = following
            if failed:
                # What cannot be read has its turn, too.
                done[number], following = following, None
            else:
                worker = idle.pop()
                worker.send(task)
                busy[worker.connection] = (worker, number)
                # The next task is read while the workers are at work.
                following = _next(tasks)
            number += 1
        if turn not in done:
            for connection in [each for each in wait(list(busy)) if isinstance(each, Connection)]:
                worker, place = busy.pop(connection)
                done[place] = worker.receive()
                idle.append(worker)
        while turn in done:
            failed, result = done.pop(turn)
            if failed:
                raise result
            yield result
            turn += 1


def _next(tasks: Iterator[Any]) -> tuple[bool, Any] | None:
    """The next task, or the error in its place; None at the end."""
    try:
        return False, next(tasks)
    except StopIteration:
        return None
    except Exception as error:
        return True, error


class _Worker:
    """A forked process that does one task after the other.

    Args:
        work: what it does with each. As the process is forked, neither this nor what it refers to is copied.
        memory: bytes that it may take in addition to what it shares.
    """

    def __init__(self, work: Callable[[Any], Any], memory: int) -> None:
        self.connection, other = Pipe()
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            try:
                self.connection.close()
                _serve(work, other, parent, memory)
            finally:
                os._exit(1)
        other.close()

    def send(self, task: Any) -> None:
        """Give it a task."""
        try:
            self.connection.send_bytes(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        except OSError:
            self._raise_end()

    def receive(self) -> tuple[bool, Any]:
        """Whether its task failed, and the result or the error."""
        try:
            answer: tuple[bool, Any] = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self._raise_end()
        return answer

    def end(self) -> None:
        """Kill it: it holds nothing that must be saved."""
        self.connection.close()
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._process = 0

    def _raise_end(self) -> NoReturn:
        _, status = os.waitpid(self._process, 0)
        self._process = 0
        code = os.waitstatus_to_exitcode(status)
        raise WorkerDied(-code if code < 0 else signal.SIGABRT)


def _serve(work: Callable[[Any], Any], connection: Connection, parent: int, memory: int) -> None:
    """The process of a worker, until its parent closes the connection or ends."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A thread of another process is no thread of this one.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _limit_memory(memory)
    while True:
        try:
            task = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(_answer(work, task))


def _answer(work: Callable[[Any], Any], task: Any) -> bytes:
    try:
        return pickle.dumps((False, work(task)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        try:
            answer = pickle.dumps((True, error))
            pickle.loads(answer)
        except Exception:
            # One that cannot be sent: its type and place, for the log.
            answer = pickle.dumps((True, RuntimeError("".join(traceback.format_exception(error)))))
        return answer


def _limit_memory(memory: int) -> None:
    """End by a MemoryError here what would otherwise take the memory of the whole container."""
    data = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    most = int(data.split()[1]) * 1024 + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
