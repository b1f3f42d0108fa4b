"""An API server whose revisions went back is noticed; one that does not answer, or is behind once, is not one."""

import asyncio
from collections.abc import Iterator

import pytest
from kubernetes.aio.client.configuration import Configuration

from hone.core.kinds import KINDS
from hone.runtime import revisions
from hone.runtime.errors import Transient
from hone.runtime.operator import Operator
from hone.runtime.options import Options
from hone.runtime.revisions import WentBack
from tests.unit.core import make
from tests.unit.runtime.fake_api import FakeApi


class Answers:
    """A client that answers with these revisions, None being no answer; then never again."""

    def __init__(self, *answers: int | None) -> None:
        self._answers: Iterator[int | None] = iter(answers)
        self.done = asyncio.Event()

    async def revision(self, namespace: str, api_version: str, kind: str) -> int:
        for answer in self._answers:
            if answer is None:
                raise Transient(503, "", "no leader")
            return answer
        self.done.set()
        await asyncio.Event().wait()
        return 0


@pytest.mark.parametrize("answers", [(5, 3, 4), (5, 6, 6, None, 2, None, 2), (1 << 40, 1, 0, 1)])
async def test_a_server_that_went_back_is_noticed(answers: tuple[int | None, ...]) -> None:
    with pytest.raises(WentBack, match=r"went back from \d+ to \d+"):
        await asyncio.wait_for(revisions.watch(Answers(*answers), lambda: [""], 0.0), 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("answers", [(), (5, 5, 5, 9), (5, None, None, 5), (5, 3, 5, 4, 6), (0, 7, 0, 0, 0, 8)])
async def test_no_other_server_is(answers: tuple[int | None, ...]) -> None:
    client = Answers(*answers)
    watching = asyncio.create_task(revisions.watch(client, lambda: [""], 0.0))  # type: ignore[arg-type]
    await asyncio.wait_for(client.done.wait(), 10)
    assert not watching.done()
    watching.cancel()


async def test_the_operator_ends_if_its_watches_show_nothing_any_more() -> None:
    api = FakeApi()
    await api.start()
    api.add(*(make.claim(f"claim-{number}") for number in range(20)))
    configuration = Configuration()
    configuration.host, configuration.retries = api.url, False
    operator = Operator(KINDS, configuration, Options(drain_seconds=1.0, pod_name="test", revision_seconds=0.05))
    operator.start()
    try:
        waiting = asyncio.create_task(operator.wait())
        while operator.client.calls["list", "FineTuneJob"] < 2:
            assert not waiting.done()
            await asyncio.wait({waiting}, timeout=0.02)
        api.restore()
        with pytest.raises(WentBack):
            await asyncio.wait_for(waiting, 10)
    finally:
        await operator.stop()
        await api.stop()
