"""Whole lives whose operator is killed at a call, and what each must end as."""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hone.core.names import STEP_LABEL
from hone.runtime.client import Call
from tests.integration.support import FTJ, MDEP, Cluster, finetunejob, inputs, modeldeployment

BEFORE, AFTER = "before", "after"
LIFE_SECONDS = 240.0


class Crash(BaseException):
    """The process is gone. No handler of ours may survive it, so it is no Exception."""


class Counting:
    """Counts the calls of a life, over all operators that it takes."""

    def __init__(self) -> None:
        self.total = 0

    async def before(self, call: Call) -> None:
        self.total += 1

    async def after(self, call: Call) -> None:
        pass


class CrashAt(Counting):
    """Crashes right before or right after the n-th call took effect; after that, no call of this process gets out."""

    def __init__(self, number: int, when: str) -> None:
        super().__init__()
        self._number, self._when = number, when
        self._mine: Call | None = None
        self.crashed = asyncio.Event()

    async def before(self, call: Call) -> None:
        await super().before(call)
        self._survive()
        if self.total == self._number:
            self._mine = call
            if self._when == BEFORE:
                self._crash()

    async def after(self, call: Call) -> None:
        self._survive()
        if call is self._mine and self._when == AFTER:
            self._crash()

    def _survive(self) -> None:
        if self.crashed.is_set():
            raise Crash

    def _crash(self) -> None:
        self.crashed.set()
        raise Crash


@dataclass(frozen=True)
class End:
    """How a life ended: what must be the same each time, wherever it was cut.

    Attributes:
        objects: `<kind>/<name>` with hashes and suffixes taken out, and how many of each.
        job: the FineTuneJob's status without times and names.
        deployment: the ModelDeployment's.
    """

    objects: dict[str, int]
    job: dict[str, Any]
    deployment: dict[str, Any]


async def live(cluster: Cluster, hook: Counting) -> End:
    """A life from both manifests to a served model, then to nothing. A crashed operator is followed by a new one."""
    await cluster.create(*inputs(), finetunejob(), modeldeployment())
    supervisor = asyncio.create_task(_supervise(cluster, hook))
    try:
        await cluster.wait_phase(MDEP, "sft", "Available", LIFE_SECONDS)
        end = await _end(cluster)
        await cluster.delete(modeldeployment())
        await cluster.delete(finetunejob())
        await cluster.wait_for("nothing left", lambda: _nothing_left(cluster), LIFE_SECONDS, every=0.5)
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
    return end


async def _supervise(cluster: Cluster, hook: Counting) -> None:
    """Run an operator; when it crashed, run another one that knows nothing of the first."""
    operator = cluster.make_operator(hook)
    operator.start()
    try:
        if isinstance(hook, CrashAt):
            await hook.crashed.wait()
            await operator.stop()
            operator = cluster.make_operator()
            operator.start()
        await asyncio.Event().wait()
    finally:
        await operator.stop()


async def _nothing_left(cluster: Cluster) -> bool:
    return not await cluster.leftovers()


async def _end(cluster: Cluster) -> End:
    job, deployment = await cluster.get(FTJ, "sft"), await cluster.get(MDEP, "sft")
    assert job and deployment
    names = Counter(_plain(name) for name in await cluster.leftovers())
    started = Counter(pod["metadata"]["labels"].get(STEP_LABEL) for pod in await cluster.all("Pod"))
    names.update({f"pod of {step}": count for step, count in started.items()})
    return End(dict(names), _comparable(job["status"]), _comparable(deployment["status"]))


def _plain(name: str) -> str:
    """A child's name without the hash of its owner and the suffixes that Kubernetes adds."""
    return re.sub(
        r"-([0-9a-f]{6}|[0-9a-f]{8})(?![0-9a-z])", "", re.sub(r"^(Pod|ReplicaSet|ControllerRevision)/.*", r"\1", name)
    )


_TIMES = {"lastTransitionTime", "startTime", "endTime", "completionTime", "progress"}
_HASHED = {"job", "claim", "runConfig", "revision", "url", "selector", "secretName"}
_VARYING = _TIMES | _HASHED


def _comparable(value: Any) -> Any:
    """A status without what differs from life to life."""
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items() if key not in _VARYING}
    return [_comparable(item) for item in value] if isinstance(value, list) else value
