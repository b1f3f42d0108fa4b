"""Progress is read in the background: who is asked when, how many at a time, and whom silent pods delay."""

import asyncio
from collections import Counter

from hone.contract.progress import Progress
from hone.core.kind import ProgressTarget
from hone.core.observed import ProgressReading
from hone.runtime.readings import FIRST_SECONDS, NAMESPACE_READS, READS, Readings
from tests.unit.runtime.support import FakeClock


class Case:
    """Pods of which some are silent, and a clock that the test moves."""

    def __init__(self, silent: tuple[str, ...] = ()) -> None:
        self.clock, self.asked, self.woken = FakeClock(), Counter[str](), Counter[str]()
        self.step: int | None = None
        self.silent, self.open, self.most = silent, 0, 0
        self.answer = asyncio.Event()
        self.readings = Readings(self._read, 10.0, self.clock)

    async def _read(self, target: ProgressTarget) -> ProgressReading:
        self.asked[target.pod_uid] += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if target.pod_uid.startswith(self.silent or "-"):
                await self.answer.wait()
                return ProgressReading(target.pod_uid, error="no answer in time")
            return ProgressReading(target.pod_uid, progress=Progress(step=self.step or self.asked[target.pod_uid]))
        finally:
            self.open -= 1

    async def after(self, seconds: float) -> None:
        """Let time pass, and let reads begin and end."""
        self.clock.advance(seconds)
        await turns()

    async def look(self, pod: str, namespace: str = "ns") -> ProgressReading | None:
        uid = f"of {pod}"
        target = ProgressTarget(pod, "10.0.0.1")
        return await self.readings.latest(namespace, uid, target, lambda: self.woken.update([pod]))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_answer_of_a_pod_is_there_at_once_and_the_next_when_it_is_due() -> None:
    case = Case()
    first = await case.look("a")
    assert first and first.progress and first.progress.step == 1
    assert not case.woken, "the reconcile that waited for it needs no other"
    await case.after(9.0)
    assert await case.look("a") == first and case.asked["a"] == 1
    await case.after(1.0)
    assert case.woken["a"] == 1
    second = await case.look("a")
    assert second and second.progress and second.progress.step == 2


async def test_a_pod_is_read_without_a_reconcile_and_wakes_one_only_when_it_says_something_else() -> None:
    case = Case()
    case.step = 5
    await case.look("a")
    for _ in range(100):
        await case.after(10.0)
    assert case.asked["a"] == 101 and not case.woken
    case.step = 6
    await case.after(10.0)
    assert case.woken["a"] == 1


async def test_a_silent_pod_holds_its_reconcile_up_only_for_a_moment_and_no_other_of_its_namespace_afterwards() -> None:
    case, loop = Case(silent=("silent",)), asyncio.get_running_loop()
    began = loop.time()
    assert await case.look("silent-1") is None
    assert loop.time() - began < 2 * FIRST_SECONDS
    case.answer.set()
    await turns()
    case.answer.clear()
    began = loop.time()
    for number in range(2, 400):
        assert await case.look(f"silent-{number}") is None
    assert loop.time() - began < FIRST_SECONDS
    assert await case.look("other", namespace="other") is not None, "another namespace is read all the same"
    await case.readings.close()


async def test_a_namespace_has_few_reads_at_a_time_and_all_together_not_many() -> None:
    case = Case(silent=("silent",))
    case.readings._silent.update({f"ns-{number}": 1 for number in range(10)})
    for number in range(100):
        await case.look(f"silent-{number}", namespace="ns-0")
    await turns()
    assert case.most == NAMESPACE_READS
    for number in range(1000):
        await case.look(f"silent-x{number}", namespace=f"ns-{number % 10}")
    await turns()
    assert case.most == READS
    case.answer.set()
    for _ in range(3000):
        await asyncio.sleep(0)
    assert len(case.asked) == 1100, "and all get their turn"


async def test_a_pod_that_does_not_answer_is_asked_less_and_less_often() -> None:
    case = Case(silent=("silent",))
    await case.look("silent")
    case.answer.set()
    await turns()
    assert case.woken["silent"] == 1, "its status tells that it does not answer"
    for _ in range(1000):
        await case.after(10.0)
    assert 1000 / 32 <= case.asked["silent"] < 45
    assert case.woken["silent"] == 1, "the same answer again changes nothing"


async def test_a_pod_that_answers_again_is_asked_as_often_as_before() -> None:
    case = Case(silent=("silent",))
    case.answer.set()
    await case.look("silent")
    for _ in range(100):
        await case.after(10.0)
    case.silent = ()
    await case.after(320.0)
    before = case.asked["silent"]
    await case.after(10.0)
    assert case.asked["silent"] == before + 1


async def test_another_pod_of_the_resource_is_read_anew() -> None:
    case = Case()
    await case.readings.latest("ns", "uid", ProgressTarget("one", "10.0.0.1"), lambda: None)
    assert case.asked["one"] == 1
    reading = await case.readings.latest("ns", "uid", ProgressTarget("two", "10.0.0.2"), lambda: None)
    assert reading and reading.pod_uid == "two"
    await case.after(10.0)
    assert (case.asked["one"], case.asked["two"]) == (1, 2)


async def test_what_is_forgotten_leaves_nothing() -> None:
    case = Case(silent=("silent",))
    case.answer.set()
    for number in range(50):
        await case.look(f"silent-{number}")
    for number in range(50):
        case.readings.forget(f"of silent-{number}")
    await turns()
    before = case.asked.total()
    await case.after(1000.0)
    assert case.asked.total() == before
    assert not case.readings._pods and not case.readings._queue
    assert not case.readings._silent.total() and not case.readings._running.total()
