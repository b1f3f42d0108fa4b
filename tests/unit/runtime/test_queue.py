"""The work queue: one worker per key, folding, back-off, delays, draining."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from hone.runtime.metrics import Metrics
from hone.runtime.queue import MAX_SECONDS, WorkQueue
from tests.unit.runtime.support import FakeClock


class Work:
    """Records what was worked on; a key of `held` waits until it is let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        self.fails: set[str] = set()

    def hold(self, key: str) -> asyncio.Event:
        self.held[key] = asyncio.Event()
        return self.held[key]

    async def process(self, key: str) -> None:
        self.began.append(key)
        if key in self.held:
            await self.held[key].wait()
        if key in self.fails:
            raise RuntimeError("a bug")
        self.ended.append(key)


async def run_until_idle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def queue(clock: FakeClock, work: Work, metrics: Metrics) -> WorkQueue[str]:
    queue: WorkQueue[str] = WorkQueue("test", work.process, metrics, workers=2, clock=clock)
    queue.start()
    return queue


async def test_a_key_is_worked_on_once_for_many_adds(queue: WorkQueue[str], work: Work) -> None:
    for _ in range(5):
        queue.add("a")
    await run_until_idle()
    assert work.ended == ["a"]


async def test_a_key_added_while_it_is_worked_on_runs_once_more_and_never_beside_itself(
    queue: WorkQueue[str], work: Work
) -> None:
    free = work.hold("a")
    queue.add("a")
    await run_until_idle()
    for _ in range(3):
        queue.add("a")
    await run_until_idle()
    assert work.began == ["a"]
    free.set()
    await run_until_idle()
    assert work.ended == ["a", "a"]


async def test_different_keys_run_beside_each_other_up_to_the_number_of_workers(
    queue: WorkQueue[str], work: Work
) -> None:
    free = [work.hold(key) for key in "abc"]
    for key in "abc":
        queue.add(key)
    await run_until_idle()
    assert work.began == ["a", "b"]
    free[0].set()
    await run_until_idle()
    assert work.began == ["a", "b", "c"]


async def test_what_is_added_before_the_start_waits_for_it(clock: FakeClock, work: Work, metrics: Metrics) -> None:
    queue: WorkQueue[str] = WorkQueue("early", work.process, metrics, clock=clock)
    queue.add("a")
    await run_until_idle()
    assert work.began == []
    queue.start()
    await run_until_idle()
    assert work.began == ["a"]


async def test_a_delayed_key_runs_when_it_is_due(queue: WorkQueue[str], clock: FakeClock, work: Work) -> None:
    queue.add_after("a", 10)
    clock.advance(9.9)
    await run_until_idle()
    assert work.began == []
    clock.advance(0.2)
    await run_until_idle()
    assert work.began == ["a"]


@pytest.mark.parametrize("delays", [(10, 5), (5, 10)])
async def test_of_two_delays_the_earlier_counts(
    queue: WorkQueue[str], clock: FakeClock, work: Work, delays: tuple[float, float]
) -> None:
    for delay in delays:
        queue.add_after("a", delay)
    clock.advance(6)
    await run_until_idle()
    assert work.began == ["a"]
    clock.advance(20)
    await run_until_idle()
    assert work.began == ["a"]


async def test_an_event_is_not_delayed_and_takes_the_place_of_the_delay(
    queue: WorkQueue[str], clock: FakeClock, work: Work
) -> None:
    queue.add_after("a", 10)
    queue.add("a")
    await run_until_idle()
    assert work.began == ["a"]
    clock.advance(20)
    await run_until_idle()
    assert work.began == ["a"]


async def test_a_delay_set_while_working_is_kept(queue: WorkQueue[str], clock: FakeClock, work: Work) -> None:
    free = work.hold("a")
    queue.add("a")
    await run_until_idle()
    queue.add_after("a", 5)
    free.set()
    await run_until_idle()
    assert work.began == ["a"]
    clock.advance(5)
    await run_until_idle()
    assert work.began == ["a", "a"]


async def test_back_off_doubles_up_to_its_bound_and_starts_anew_after_success(queue: WorkQueue[str]) -> None:
    delays = [queue.add_rate_limited("a") for _ in range(20)]
    assert 0.04 <= delays[0] <= 0.05
    assert 0.08 <= delays[1] <= 0.1
    assert all(0.8 * MAX_SECONDS <= delay <= MAX_SECONDS for delay in delays[-3:])
    assert queue.failures("a") == 20
    assert queue.add_rate_limited("b") <= 0.05
    queue.forget("a")
    assert queue.add_rate_limited("a") <= 0.05


async def test_back_off_waits_at_least_what_the_server_asks(queue: WorkQueue[str]) -> None:
    assert queue.add_rate_limited("a", at_least=7.0) == 7.0


async def test_work_that_raises_is_tried_again(queue: WorkQueue[str], clock: FakeClock, work: Work) -> None:
    work.fails.add("a")
    queue.add("a")
    await run_until_idle()
    work.fails.clear()
    clock.advance(1)
    await run_until_idle()
    assert work.began == ["a", "a"]
    assert work.ended == ["a"]


async def test_stop_lets_running_work_end_and_drops_the_rest(
    queue: WorkQueue[str], clock: FakeClock, work: Work
) -> None:
    free = work.hold("a")
    for key in "ab":
        queue.add(key)
    queue.add("a")
    queue.add_after("c", 1)
    await run_until_idle()
    stopping = asyncio.create_task(queue.stop(grace=60))
    await run_until_idle()
    assert not stopping.done()
    free.set()
    assert await stopping
    clock.advance(5)
    queue.add("d")
    queue.add_after("e", 0)
    clock.advance(5)
    await run_until_idle()
    assert work.ended == ["b", "a"]


async def test_stop_cuts_off_work_that_does_not_end(queue: WorkQueue[str], work: Work) -> None:
    work.hold("a")
    queue.add("a")
    await run_until_idle()
    assert not await queue.stop(grace=0.01)
    assert work.ended == []


async def test_metrics_count_adds_retries_and_depth(
    queue: WorkQueue[str], clock: FakeClock, work: Work, metrics: Metrics
) -> None:
    free = [work.hold(key) for key in "abc"]
    for key in "abcc":
        queue.add(key)
    await run_until_idle()
    clock.advance(3)
    values = dict(samples(metrics))
    assert values["workqueue_depth"] == 1
    assert values["workqueue_adds_total"] == 3
    assert values["workqueue_longest_running_processor_seconds"] == 3
    assert values["workqueue_unfinished_work_seconds"] == 6
    for event in free:
        event.set()
    await run_until_idle()
    queue.add_rate_limited("a")
    values = dict(samples(metrics))
    assert values["workqueue_depth"] == 0
    assert values["workqueue_retries_total"] == 1
    assert values["workqueue_work_duration_seconds_count"] == 3
    assert values["workqueue_queue_duration_seconds_sum"] == 3


def samples(metrics: Metrics) -> Iterator[tuple[str, float]]:
    """Name and value of every series of the queue `test`."""
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.labels.get("name") == "test" and "le" not in sample.labels:
                yield sample.name, sample.value


async def test_groups_take_turns() -> None:
    """A tenant with a thousand keys does not make another one wait for all of them."""
    done: list[str] = []

    async def process(key: str) -> None:
        done.append(key)

    queue: WorkQueue[str] = WorkQueue("test", process, Metrics(), workers=1, group=lambda key: key[0])
    for key in [*(f"a{number}" for number in range(1000)), "b0", "c0", "b1"]:
        queue.add(key)
    queue.start()
    for _ in range(5000):
        await asyncio.sleep(0)
    assert done[:6] == ["a0", "b0", "c0", "a1", "b1", "a2"]
    assert done[6:] == [f"a{number}" for number in range(3, 1000)], "in their order"


async def _shared(work: Work, clock: FakeClock | None = None, workers: int = 8, share: int = 2) -> WorkQueue[str]:
    """A queue whose groups are the first letters of the keys."""
    queue: WorkQueue[str] = WorkQueue("test", work.process, Metrics(), workers, clock, lambda key: key[0], share)
    queue.start()
    return queue


@pytest.mark.parametrize(("workers", "alone"), [(8, 7), (4, 3), (3, 3), (2, 2), (1, 1)])
async def test_a_group_that_is_alone_leaves_one_worker_of_four_or_more_free(
    work: Work, workers: int, alone: int
) -> None:
    queue = await _shared(work, workers=workers, share=-(-workers // 4))
    for number in range(20):
        work.hold(f"a{number}")
        queue.add(f"a{number}")
    await run_until_idle()
    assert work.began == [f"a{number}" for number in range(alone)]
    queue.add("b0")
    await run_until_idle()
    assert work.ended == (["b0"] if alone < workers else []), "it finds that one at once"
    await queue.stop(grace=0)


async def test_a_group_has_its_share_while_all_keys_of_another_one_are_worked_on(work: Work) -> None:
    queue = await _shared(work)
    held = work.hold("b0")
    queue.add("b0")
    await run_until_idle()
    ends = [work.hold(f"a{number}") for number in range(20)]
    for number in range(20):
        queue.add(f"a{number}")
    await run_until_idle()
    assert set(work.began) == {"a0", "a1", "b0"}
    ends[0].set()
    await run_until_idle()
    assert set(work.began) == {"a0", "a1", "a2", "b0"}, "another one in the place of that which ended"
    held.set()
    await run_until_idle()
    assert len(work.began) == 9, "alone again: seven at a time, and a0 and b0, which have ended"
    await queue.stop(grace=0)


@pytest.mark.parametrize(
    ("groups", "most"), [("ab", {"a": 4, "b": 3}), ("abcde", {"a": 2, "b": 2, "c": 1, "d": 1, "e": 1})]
)
async def test_groups_that_all_have_keys_that_wait_have_nearly_all_workers(
    work: Work, groups: str, most: dict[str, int]
) -> None:
    queue = await _shared(work)
    for number in range(20):
        for group in groups:
            work.hold(f"{group}{number}")
            queue.add(f"{group}{number}")
    await run_until_idle()
    assert Counter(key[0] for key in work.began) == most
    await queue.stop(grace=0)


async def test_a_group_waits_for_no_time_while_another_one_has_work(clock: FakeClock, work: Work) -> None:
    queue = await _shared(work, clock)
    work.hold("b0")
    for key in ["b0", *(f"a{number}" for number in range(100))]:
        queue.add(key)
    for _ in range(20):
        await run_until_idle()
    assert len(work.ended) == 100, "although the clock stands still"
    await queue.stop(grace=0)


async def test_keys_of_events_take_turns_with_those_of_a_listing_in_their_group(work: Work) -> None:
    queue: WorkQueue[str] = WorkQueue("test", work.process, Metrics(), workers=1)
    for number in range(100):
        queue.add(f"old{number}", listed=True)
    for key in ("new0", "new1", "old50", "new2"):
        queue.add(key)
    queue.add("new1", listed=True)
    queue.start()
    for _ in range(500):
        await asyncio.sleep(0)
    assert work.ended[:7] == ["new0", "old0", "new1", "old1", "old50", "old2", "new2"]
    rest = [f"old{number}" for number in range(3, 100) if number != 50]
    assert work.ended[7:] == rest, "in their order, each once"
