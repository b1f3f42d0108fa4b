"""Leader election by a Lease, in virtual time: one leads, and when it does not, another takes over."""

import asyncio
import copy
import itertools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hone.core.observed import Object, Ref
from hone.runtime.election import Election, Lease, LeaseLost
from hone.runtime.errors import Conflict, Transient
from hone.runtime.metrics import Metrics

LEASE = Lease("hone-system", "hone", 15)


class _Selector(selectors.SelectSelector):
    """Waits for nothing: the time that would be waited passes at once."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        self.passed += 0 if ready else timeout or 0
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while nothing is left to do."""

    def __init__(self) -> None:
        self._passing = _Selector()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.passed


class Store:
    """The API server: it stores one Lease, and answers late or not at all if so told.

    Attributes:
        lease: the Lease, if there is one.
        delay: seconds until a call has an effect.
        failing: whether calls fail.
    """

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.delay, self.failing = 0.01, False
        self._versions = itertools.count(1)

    async def get(self, namespace: str, ref: Ref) -> Object | None:
        await self._wait()
        assert (namespace, ref.name) == (LEASE.namespace, LEASE.name)
        return copy.deepcopy(self.lease)

    async def create(self, namespace: str, body: Object) -> Object:
        await self._wait()
        if self.lease:
            raise Conflict(409, "AlreadyExists", "it exists")
        return self.write(body)

    async def patch(self, namespace: str, ref: Ref, body: Object) -> Object:
        await self._wait()
        assert self.lease
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "it changed")
        return self.write({**self.lease, "spec": {**self.lease["spec"], **body["spec"]}})

    async def close(self) -> None:
        pass

    def write(self, body: Object) -> Object:
        """Store the Lease as of now."""
        metadata = {**body["metadata"], "resourceVersion": str(next(self._versions))}
        self.lease = {**copy.deepcopy(body), "metadata": metadata}
        return self.lease

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of the Lease."""
        assert self.lease
        spec: dict[str, Any] = self.lease["spec"]
        return spec

    async def _wait(self) -> None:
        await asyncio.sleep(self.delay)
        if self.failing:
            raise Transient(503, "", "no leader of etcd")


class Candidate:
    """A candidate that tries to lead."""

    def __init__(self, store: Store, name: str = "a") -> None:
        self.metrics = Metrics()
        self.election = Election(store, LEASE, name, self.metrics)  # type: ignore[arg-type]
        self.holding = asyncio.create_task(self.election.hold())

    async def leads(self) -> None:
        """Wait until it does."""
        async with asyncio.timeout(1000):
            await self.election.leads.wait()

    async def crash(self) -> None:
        """Renew the Lease no more, and do not give it back."""
        self.holding.cancel()
        await asyncio.gather(self.holding, return_exceptions=True)

    @property
    def state(self) -> tuple[bool, bool, float | None]:
        """Whether it leads, whether it waits for another, and what its metrics say."""
        gauge = self.metrics.registry.get_sample_value("leader_election_master_status", {"name": LEASE.name})
        return self.election.leads.is_set(), self.election.waits, gauge


LEADING, WAITING, NEITHER = (True, False, 1), (False, True, 0), (False, False, 0)


def in_virtual_time(life: Callable[[Store], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in a loop of its own."""

    def test() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(life(Store()))

    return test


def now() -> float:
    """Virtual seconds since the test began."""
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_one_leads_and_another_takes_over_once_its_lease_is_over(store: Store) -> None:
    first = Candidate(store)
    await first.leads()
    second = Candidate(store, "b")
    await asyncio.sleep(10 * LEASE.seconds)
    assert (first.state, second.state) == (LEADING, WAITING)
    await first.crash()
    crashed = now()
    await second.leads()
    assert LEASE.seconds - LEASE.pause - 1 < now() - crashed < LEASE.seconds + LEASE.pause + 1
    assert store.spec["holderIdentity"] == second.election.identity
    assert store.spec["leaseTransitions"] == 1 and second.state == LEADING


@in_virtual_time
async def test_a_lease_that_is_given_back_is_not_waited_for(store: Store) -> None:
    first = Candidate(store)
    await first.leads()
    second = Candidate(store, "b")
    await asyncio.sleep(LEASE.seconds)
    await first.crash()
    await first.election.close()
    ended = now()
    await second.leads()
    assert now() - ended <= LEASE.pause + 1


@in_virtual_time
async def test_one_that_waits_gives_nothing_back(store: Store) -> None:
    first = Candidate(store)
    await first.leads()
    second = Candidate(store, "b")
    await asyncio.sleep(LEASE.seconds)
    await second.crash()
    await second.election.close()
    assert store.spec["holderIdentity"] == first.election.identity


@in_virtual_time
async def test_of_many_at_once_one_leads(store: Store) -> None:
    many = [Candidate(store, f"c{number}") for number in range(8)]
    for _ in range(3):
        await asyncio.sleep(2 * LEASE.seconds)
        leading = [each for each in many if each.state == LEADING]
        assert [each.election.identity for each in leading] == [store.spec["holderIdentity"]]
        await leading[0].crash()
        many.remove(leading[0])


def unreachable(store: Store) -> None:
    store.delay = 1e6


def failing(store: Store) -> None:
    store.failing = True


@pytest.mark.parametrize(("fault", "why"), [(unreachable, "no answer in time"), (failing, "no leader of etcd")])
def test_one_that_cannot_renew_gives_up_before_others_take_over(fault: Callable[[Store], None], why: str) -> None:
    async def life(store: Store) -> None:
        first = Candidate(store)
        await first.leads()
        fault(store)
        began = now()
        with pytest.raises(LeaseLost, match=f"could not be renewed: .*{why}"):
            await first.holding
        assert LEASE.deadline - LEASE.pause < now() - began < LEASE.seconds - LEASE.pause

    in_virtual_time(life)()


@pytest.mark.parametrize("seconds", [0, 15])
def test_one_whose_lease_is_anothers_gives_up_at_once(seconds: int) -> None:
    async def life(store: Store) -> None:
        first = Candidate(store)
        await first.leads()
        store.write({**(store.lease or {}), "spec": {"holderIdentity": "other", "leaseDurationSeconds": seconds}})
        began = now()
        with pytest.raises(LeaseLost, match="other holds the Lease hone"):
            await first.holding
        assert now() - began <= LEASE.pause + 1
        await first.election.close()
        assert store.spec["holderIdentity"] == "other"

    in_virtual_time(life)()


@in_virtual_time
async def test_a_short_outage_is_survived_and_a_deleted_lease_is_made_again(store: Store) -> None:
    first = Candidate(store)
    await first.leads()
    store.failing = True
    await asyncio.sleep(LEASE.deadline / 2)
    store.failing, store.lease = False, None
    await asyncio.sleep(10 * LEASE.seconds)
    assert first.state == LEADING and not first.holding.done()
    assert store.spec["holderIdentity"] == first.election.identity


@in_virtual_time
async def test_a_process_that_is_started_again_in_a_pod_is_another_candidate(store: Store) -> None:
    first = Candidate(store)
    await first.leads()
    again = Candidate(store)
    await asyncio.sleep(LEASE.seconds)
    assert (first.state, again.state) == (LEADING, WAITING)


@in_virtual_time
async def test_one_that_cannot_read_the_lease_neither_leads_nor_counts_as_ready(store: Store) -> None:
    store.failing = True
    first = Candidate(store)
    await asyncio.sleep(LEASE.seconds)
    assert first.state == NEITHER
    store.failing = False
    await first.leads()
