"""An API server that fails, is slow, or changes objects under the operator's hands: the end is the same."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from hone.api import API_VERSION
from hone.core.observed import Ref
from hone.runtime.client import Call
from hone.runtime.errors import ApiError, Forbidden, Transient
from tests.integration.lives import Counting, live
from tests.integration.support import FTJ, Cluster, NewCluster, condition, finetunejob, inputs


class FailEvery(Counting):
    """Fails every n-th call: before it is sent, or after it took effect, in turns."""

    def __init__(self, every: int, error: Callable[[], ApiError]) -> None:
        super().__init__()
        self._every, self._error = every, error

    async def before(self, call: Call) -> None:
        await super().before(call)
        if call.number % (2 * self._every) == 0:
            raise self._error()

    async def after(self, call: Call) -> None:
        if call.number % (2 * self._every) == self._every:
            raise self._error()


class DelayEvery(Counting):
    """Holds back every n-th call for a while."""

    async def before(self, call: Call) -> None:
        await super().before(call)
        await asyncio.sleep(0.3 if call.number % 7 == 0 else 0)


FAULTS: dict[str, Callable[[], Counting]] = {
    # A look takes up to 15 calls: what fails more often than that lets none through.
    "every 17th call answers 500": lambda: FailEvery(17, lambda: Transient(500, "InternalError", "etcd is unwell")),
    "every 19th call gets no answer": lambda: FailEvery(19, lambda: Transient(0, "", "connection reset")),
    "every 29th call is throttled": lambda: FailEvery(29, lambda: Transient(429, "TooManyRequests", "slow", 0.2)),
    "every 7th call is slow": DelayEvery,
}


async def test_a_life_ends_the_same_whatever_fails(new_cluster: NewCluster) -> None:
    clusters = [await new_cluster() for _ in range(len(FAULTS) + 1)]
    hooks = [Counting(), *(make() for make in FAULTS.values())]
    expected, *ends = await asyncio.gather(*(live(c, hook) for c, hook in zip(clusters, hooks, strict=True)))
    for case, end in zip(FAULTS, ends, strict=True):
        assert end == expected, case


class Edit(Counting):
    """Changes the resource right before its status is written, a few times: each write then meets a conflict."""

    def __init__(self, cluster: Cluster, times: int) -> None:
        super().__init__()
        self._cluster, self._left, self.refused = cluster, times, 0

    async def before(self, call: Call) -> None:
        if call.verb == "update_status" and self._left:
            self._left -= 1
            ref = Ref(API_VERSION, call.kind, call.name)
            labels = {"edited": str(self._left)}
            await self._cluster.client.patch(self._cluster.namespace, ref, {"metadata": {"labels": labels}})


async def test_a_status_is_never_written_over_a_change_that_was_not_read(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob())
    async with cluster.operator(Edit(cluster, 5)) as operator:
        job = await cluster.wait_phase(FTJ, "sft", "Succeeded")
        text = operator.metrics.text().decode()
    assert job["metadata"]["labels"] == {"edited": "0"}
    assert len(job["status"]["attempts"]) == 3
    assert 'rest_client_requests_total{code="409",method="PUT"} 5.0' in text
    assert 'controller_runtime_reconcile_panics_total{controller="finetunejob"} 0.0' in text


class Forbid(Counting):
    """Forbids the creation of Jobs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.on = True
        self.requests: Counter[str] = Counter()

    async def before(self, call: Call) -> None:
        if self.on and (call.verb, call.kind) == ("create", "Job"):
            self.requests[call.kind] += 1
            raise Forbidden(403, "Forbidden", "jobs.batch is forbidden: User hone cannot create resource jobs")


async def test_a_right_that_is_missing_is_shown_and_its_grant_is_noticed(cluster: Cluster) -> None:
    await cluster.create(*inputs(), finetunejob())
    hook = Forbid()
    async with cluster.operator(hook):

        async def stalled() -> bool:
            entry = condition(await cluster.get(FTJ, "sft"), "Stalled")
            return entry.get("reason") == "Refused" and "cannot create resource jobs" in entry["message"]

        await cluster.wait_for("Stalled/Refused", stalled)

        async def asked_again() -> bool:
            return hook.requests["Job"] >= 2

        await cluster.wait_for("a slow retry", asked_again)
        reasons = [reason for _, reason, _ in await cluster.events()]
        assert reasons.count("Refused") == 1, "reported once, not at every retry"
        hook.on = False
        await cluster.wait_phase(FTJ, "sft", "Succeeded")


class Bug(Counting):
    """Makes two observations blow up in a way that nobody foresaw."""

    async def before(self, call: Call) -> None:
        await super().before(call)
        if self.total in (3, 11):
            raise ZeroDivisionError("a bug")


async def test_a_bug_is_logged_counted_and_survived(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    await cluster.create(*inputs(), finetunejob())
    async with cluster.operator(Bug()) as operator:
        await cluster.wait_phase(FTJ, "sft", "Succeeded")
        text = operator.metrics.text().decode()
    assert 'controller_runtime_reconcile_panics_total{controller="finetunejob"} 2.0' in text
    assert [record.exc_info for record in caplog.records if "bug" in record.message]
