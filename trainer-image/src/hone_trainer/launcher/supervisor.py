"""What the launcher checks while its ranks run: a request to stop before training has begun, and ranks that hang."""

import logging
import time
from pathlib import Path

from hone.contract.exits import FailureClass, exit_code
from hone.contract.verdict import Verdict
from hone_trainer.launcher import stack_traces, watchdog
from hone_trainer.launcher.attempt import PodAttempt
from hone_trainer.protocol import host
from hone_trainer.protocol.errors import MAX_MESSAGE, clip
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.status import BUDGET
from hone_trainer.protocol.verdicts import HINTS, preempted

WATCH_SECONDS = 1.0
PEER_SECONDS = 15.0
"""How long a pod whose ranks only wait for others stays, so that the end of the one that hangs is seen first."""

_DOING = {watchdog.LOADING: "while loading", watchdog.SAVING: "while saving a checkpoint"}
_NOT_BEGUN = frozenset({"Starting", "Probing", "Searching"})

logger = logging.getLogger(__name__)


class Supervisor:
    """Decides whether the ranks of one start must end. Called repeatedly while they run."""

    def __init__(self, pod: PodAttempt) -> None:
        self._pod = pod
        self._moves = watchdog.Moves()
        self._clock = 0.0
        self._usage_at = 0.0
        self._observed_at = time.monotonic()

    def __call__(self, torchrun: int) -> Verdict | None:
        """Why the ranks are to be ended now, or None.

        Args:
            torchrun: its process.
        """
        pod = self._pod
        if pod.over_budget and not pod.status.stop_raised():
            logger.info("the budget is used up", extra={"seconds": pod.attempt.budget_seconds})
            pod.status.raise_stop(BUDGET)
        # Once a rank trains, the ranks agree on a step to save and stop at. Before, there is nothing to save, and a
        # rank may wait for peers that will never come.
        if pod.status.stop_raised() and all(one.stage in _NOT_BEGUN for one in pod.status.statuses().values()):
            return preempted(pod.node, pod.status.stopped_by())
        now = time.monotonic()
        if now - self._observed_at < WATCH_SECONDS:
            return None
        # Time in which this process itself was paused (a frozen pod, a suspended machine) does not count for the ranks.
        self._clock += min(now - self._observed_at, 5 * WATCH_SECONDS)
        self._observed_at = now
        self._moves = watchdog.observe(self._moves, pod.status.statuses(), pod.status.beats(), self._clock)
        if self._clock - self._usage_at >= watchdog.USAGE_SECONDS:
            self._usage_at = self._clock
            usage = host.usage(host.rank_processes(torchrun))
            self._moves = watchdog.observe_usage(self._moves, usage, self._clock)
        stuck = watchdog.stuck(self._moves, pod.config, pod.planned)
        return None if stuck is None else self._hung(torchrun, stuck)

    def _hung(self, torchrun: int, stuck: watchdog.Stuck) -> Verdict | None:
        """The verdict, or None where ranks load or save nothing because they wait for others that do."""
        pod, world_size = self._pod, self._pod.config.topology.world_size
        stacks = stack_traces.ask_for_stacks(pod.status, host.rank_processes(torchrun))
        of_stuck = {rank: stacks.get(rank, "") for rank in stuck.ranks} if stuck.stage else stacks
        suspect = stack_traces.suspect(of_stuck, world_size)
        if stuck.stage and suspect is None:
            self._moves = watchdog.excuse(self._moves, stuck.ranks)
            return None
        logger.error("the ranks hang", extra={"idleSeconds": round(stuck.idle), "stacks": stacks})
        verdict = Verdict(
            failure_class=FailureClass.HUNG,
            message=clip(f"{_describe(stuck, stacks, suspect)}; {self._write_stacks(stacks)}", MAX_MESSAGE),
            hint=HINTS[FailureClass.HUNG],
            rank=suspect,
            node=pod.node,
            exit_code=exit_code(FailureClass.HUNG),
            step=min((one.step for one in pod.status.statuses().values()), default=None),
            time=time.time(),
        )
        if suspect is None and pod.config.topology.nodes > 1:
            deadline = time.monotonic() + PEER_SECONDS
            while time.monotonic() < deadline and not pod.status.stop_raised():
                time.sleep(0.2)
        return verdict

    def _write_stacks(self, stacks: dict[int, str]) -> str:
        """Write all stacks next to the checkpoints, and say where they are."""
        pod = self._pod
        path = Path(pod.config.paths.run) / f"stacks-attempt-{pod.attempt.number}-node-{pod.node}.txt"
        try:
            write_atomic(path, stack_traces.report(stacks).encode())
        except OSError as error:
            return f"stack traces are only in the pod's log, because {path.name} could not be written: {error}"
        return f"stack traces: {path}"


def _describe(stuck: watchdog.Stuck, stacks: dict[int, str], suspect: int | None) -> str:
    limit = f"{stuck.idle:.0f} s (limit: {stuck.limit:.0f} s)"
    idle_for = (
        f"no rank of this pod has made progress for {limit}"
        if stuck.stage is None
        else f"{_DOING[stuck.stage]}, rank {suspect} has neither computed, read nor written for {limit}"
    )
    if suspect is None:
        return f"{idle_for}; all of them wait for ranks of other pods"
    if not stacks.get(suspect):
        return f"{idle_for}; rank {suspect} is the suspect: it did not return its stack traces"
    return f"{idle_for}; rank {suspect} is the suspect: it is in {stack_traces.place(stacks[suspect])}"
