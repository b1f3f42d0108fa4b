"""Why a rank ended: exceptions sorted into failure classes, and the verdicts of a pod merged into one."""

import re
import signal
import time
from collections.abc import Iterator

from hone.contract.exits import POLICIES, FailureClass, exit_code
from hone.contract.verdict import Verdict
from hone_trainer.protocol.errors import MAX_HINT, MAX_MESSAGE, BadInput, clip, full_disk_hint, place_of, words_of
from hone_trainer.protocol.status import StatusDir


class Diverged(Exception):
    """The loss is no longer a number."""


class Preempted(Exception):
    """The pod was asked to stop."""


# Types by name: neither this module nor the launcher, which uses it, imports torch.
_BY_TYPE: dict[str, FailureClass] = {
    "BadInput": FailureClass.BAD_INPUT,
    "Diverged": FailureClass.DIVERGED,
    "Preempted": FailureClass.PREEMPTED,
    "WorkspaceFull": FailureClass.CRASHED,
    "OutOfMemoryError": FailureClass.OUT_OF_MEMORY,
    "MemoryError": FailureClass.HOST_OUT_OF_MEMORY,
    "DistBackendError": FailureClass.COMMUNICATION,
    "DistNetworkError": FailureClass.COMMUNICATION,
    "DistStoreError": FailureClass.COMMUNICATION,
    "ConnectionError": FailureClass.COMMUNICATION,
    "GangIncomplete": FailureClass.NEVER_STARTED,
}

# gloo, CUDA's libraries and the CPU allocator raise a bare RuntimeError: only its text shows what happened.
_BY_WORDS: list[tuple[re.Pattern[str], FailureClass]] = [
    (
        re.compile(
            r"CUDA out of memory|CUDA error: out of memory|Cuda failure.{0,20}out of memory|"
            r"(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED",
            re.I,
        ),
        FailureClass.OUT_OF_MEMORY,
    ),
    # DeepSpeed's words where gradients of float16 overflow though the loss is not scaled any more.
    (re.compile(r"loss scale already at minimum"), FailureClass.DIVERGED),
    # On a GPU's host this is the pod's memory, on the CPU (see `classify`) the memory that the fallback can spare.
    (re.compile(r"DefaultCPUAllocator: (can't|not enough)", re.I), FailureClass.HOST_OUT_OF_MEMORY),
    (
        re.compile(
            r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|Socket (timeout|closed)|TCPStore|"
            r"Timed out waiting \d+ms",
            re.I,
        ),
        FailureClass.COMMUNICATION,
    ),
]

HINTS: dict[FailureClass, str] = {
    FailureClass.DIVERGED: "Lower spec.hyperparameters.learningRate, or look for broken rows in the data.",
    FailureClass.OUT_OF_MEMORY: "Lower spec.compute.microBatchSize or spec.hyperparameters.sequenceLength.",
    FailureClass.HOST_OUT_OF_MEMORY: "Raise the memory limit in spec.compute.resources.",
    FailureClass.HUNG: "Read the file that the message names: its stack traces show where each rank hangs. If it is "
    "only slow, raise spec.progressDeadlineSeconds.",
    FailureClass.NEVER_STARTED: "Check why the other pods do not start, and whether pods of the job reach each other.",
    FailureClass.COMMUNICATION: "Check whether another rank or pod failed first; if not, check the pods' network.",
}


def classify(error: BaseException, *, on_gpu: bool = False) -> FailureClass:
    """The failure class of what ended a rank; Crashed where no rule matches.

    Args:
        error: what ended it.
        on_gpu: whether tensors are on a GPU. Where they are not, the memory fallback can help against a failed
            allocation in the host's memory.
    """
    for cause in _causes(error):
        for kind in type(cause).__mro__:
            if kind.__name__ in _BY_TYPE:
                return _BY_TYPE[kind.__name__]
        # DeepSpeed raises a bare Exception.
        if isinstance(cause, RuntimeError) or type(cause) is Exception:
            for words, failure_class in _BY_WORDS:
                if words.search(str(cause)):
                    host = failure_class is FailureClass.HOST_OUT_OF_MEMORY
                    return FailureClass.OUT_OF_MEMORY if host and not on_gpu else failure_class
    return FailureClass.CRASHED


def from_exception(
    error: BaseException,
    rank: int | None,
    node: int | None,
    step: int | None,
    *,
    on_gpu: bool = False,
    reads_rows: bool = False,
) -> Verdict:
    """The verdict of a process that ends with `error`: the error's own text and the line that raised it.

    Args:
        error: what ended it.
        rank, node: its global rank and pod; None where it is no rank.
        step: last optimizer step that was finished.
        on_gpu: as in `classify`.
        reads_rows: whether the process handles the text of rows, which its errors must not repeat.
    """
    if isinstance(error, BadInput):
        return error.verdict().model_copy(update={"rank": rank, "node": node, "step": step})
    failure_class = classify(error, on_gpu=on_gpu)
    message = (words_of(error) if reads_rows and failure_class is FailureClass.CRASHED else str(error)) or type(
        error
    ).__name__
    if failure_class not in (FailureClass.DIVERGED, FailureClass.PREEMPTED, FailureClass.NEVER_STARTED):
        message = f"{type(error).__name__}: {clip(message, MAX_MESSAGE - 200)}{place_of(error)}"
    verdict = _verdict(failure_class, message, rank=rank, node=node, step=step, code=exit_code(failure_class))
    hint = full_disk_hint(error) if failure_class == FailureClass.CRASHED else None
    return verdict.model_copy(update={"hint": hint}) if hint else verdict


def from_exit(rank: int, node: int, code: int, when: float, step: int | None, killed_for_memory: bool) -> Verdict:
    """The verdict on a rank that died without reporting a verdict.

    Args:
        rank: its global rank.
        node: index of its pod.
        code: its exit code; negative for a signal.
        when: when that was seen, in seconds since the epoch.
        step: last optimizer step that it reported.
        killed_for_memory: whether the kernel has killed a process of this pod for memory.
    """
    if code == -signal.SIGKILL and killed_for_memory:
        failure_class, how = (
            FailureClass.HOST_OUT_OF_MEMORY,
            "was killed by the kernel because the pod exceeded its memory limit",
        )
    elif code < 0:
        failure_class, how = FailureClass.CRASHED, f"was killed by {signal_name(-code)}"
    else:
        failure_class, how = (
            FailureClass.CRASHED,
            f"exited with code {code} without an error message; see the pod's log",
        )
    return _verdict(failure_class, f"rank {rank} {how}", rank=rank, node=node, step=step, code=code, when=when)


def merge(verdicts: list[Verdict]) -> Verdict:
    """The root cause: the class with the highest priority, then the earliest verdict, then the lowest rank.

    Raises:
        ValueError: there are no verdicts.
    """
    return min(verdicts, key=lambda v: (POLICIES[v.failure_class].rank, v.time or float("inf"), v.rank or 0))


def of_pod(status: StatusDir, code: int, node: int, *, killed_for_memory: bool) -> Verdict | None:
    """Why the ranks of a pod ended, or None where they trained to the end.

    Args:
        status: what they reported.
        code: torchrun's exit code; negative for a signal.
        node: index of the pod.
        killed_for_memory: whether the kernel has killed a process of this pod for memory.
    """
    verdicts = status.verdicts()
    if code == 0 and not verdicts:
        return None
    steps = {rank: one.step for rank, one in status.statuses().items()}
    spoke = {verdict.rank for verdict in verdicts}
    failures = status.failures()
    if any(failure["exitCode"] != -signal.SIGTERM for failure in failures.values()) or spoke:
        # torchrun lists the ranks that it ended itself, too.
        failures = {rank: failure for rank, failure in failures.items() if failure["exitCode"] != -signal.SIGTERM}
    for rank, failure in failures.items():
        if rank not in spoke:
            verdicts.append(
                from_exit(rank, node, int(failure["exitCode"]), failure["time"], steps.get(rank), killed_for_memory)
            )
    if not verdicts:
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"exited with code {code}"
        failure_class = FailureClass.HOST_OUT_OF_MEMORY if killed_for_memory else FailureClass.CRASHED
        message = f"torchrun {how}, and no rank reported an error; see the pod's log"
        return _verdict(failure_class, message, rank=None, node=node, step=min(steps.values(), default=None), code=code)
    return merge(verdicts)


def preempted(node: int, by: str) -> Verdict:
    """The verdict on a pod that was asked to stop by SIGTERM, or what else it was, before its ranks had begun."""
    message = f"stopped by {by} before its first step; there was nothing to save"
    failure_class = FailureClass.PREEMPTED
    return _verdict(failure_class, message, rank=None, node=node, step=None, code=exit_code(failure_class))


def signal_name(number: int) -> str:
    """SIGKILL for 9; `signal 99` for what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _verdict(
    failure_class: FailureClass,
    message: str,
    *,
    rank: int | None,
    node: int | None,
    step: int | None,
    code: int,
    when: float | None = None,
) -> Verdict:
    hint = HINTS.get(failure_class)
    return Verdict(
        failure_class=failure_class,
        message=clip(message, MAX_MESSAGE),
        hint=clip(hint, MAX_HINT) if hint else None,
        rank=rank,
        node=node,
        exit_code=code,
        step=step,
        time=time.time() if when is None else when,
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # Only explicit causes: what happened to be handled when an error was raised did not cause it.
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__
