"""The operator killed right before or right after any API call of a whole life: the end is the same each time."""

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable

import pytest

from tests.integration.lives import AFTER, BEFORE, Counting, CrashAt, End, live
from tests.integration.support import NewCluster

AT_A_TIME = 8
STRIDE = 9
SLICES = 16
log = logging.getLogger(__name__)


async def reference(new_cluster: NewCluster) -> tuple[End, int]:
    """How an undisturbed life ends, and how many calls it takes."""
    counting = Counting()
    return await live(await new_cluster(), counting), counting.total


async def crash_at_each(new_cluster: NewCluster, expected: End, cuts: Iterable[tuple[int, str]]) -> None:
    """Live once for each cut, some at a time, and compare the ends."""
    limit, different = asyncio.Semaphore(AT_A_TIME), []

    async def one(number: int, when: str) -> None:
        async with limit:
            began = time.monotonic()
            end = await live(await new_cluster(), CrashAt(number, when))
            log.info("crashed %s call %d: lived %.1f s", when, number, time.monotonic() - began)
            if end != expected:
                different.append(f"crashed {when} call {number}:\n  {end}\nwant\n  {expected}")

    async with asyncio.TaskGroup() as group:
        for number, when in cuts:
            group.create_task(one(number, when))
    assert not different, "\n".join(different)


@pytest.mark.timeout(600)
async def test_crashed_at_every_ninth_call(new_cluster: NewCluster) -> None:
    expected, calls = await reference(new_cluster)
    assert calls > 20, "a life has at least three Jobs, a Service, a Deployment and their status"
    cuts = zip(range(1, calls + 1, STRIDE), itertools.cycle((BEFORE, AFTER)), strict=False)
    await crash_at_each(new_cluster, expected, cuts)


async def test_two_operators_at_a_time_do_no_harm(new_cluster: NewCluster) -> None:
    alone, crowded = await new_cluster(), await new_cluster()
    async with crowded.operator():
        expected, end = await asyncio.gather(live(alone, Counting()), live(crowded, Counting()))
    assert end == expected


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(SLICES))
async def test_crashed_at_every_call(new_cluster: NewCluster, part: int) -> None:
    """All calls, both ways, in slices: part k takes the calls k, k + 16, k + 32…"""
    expected, calls = await reference(new_cluster)
    cuts = itertools.product(range(1 + part, calls + 1, SLICES), (BEFORE, AFTER))
    await crash_at_each(new_cluster, expected, cuts)
