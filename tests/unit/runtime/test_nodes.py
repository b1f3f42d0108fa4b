"""Nodes are listed in pages, seldom, and not at all where the operator may not; a job on GPUs gets what they show."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hone.core.observed import Object
from hone.runtime import nodes
from hone.runtime.errors import Forbidden, Transient
from hone.runtime.nodes import Nodes
from tests.unit.runtime.fake_api import FakeApi
from tests.unit.runtime.test_operator import api as api  # a fixture
from tests.unit.runtime.test_operator import operating, run, wait_for


def node(name: str, memory: str = "23028") -> Object:
    """A node with a GPU."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-A10G", "nvidia.com/gpu.memory": memory}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"nvidia.com/gpu": "1"}},
    }


class StubClient:
    """Answers with nodes, or fails."""

    def __init__(self, *answers: "list[Object] | Exception") -> None:
        self.answers = [*answers]

    async def pages(self, *which: Any) -> AsyncIterator[Object]:
        """One list."""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        for obj in answer:
            yield obj


def listing(client: StubClient) -> tuple[Nodes, list[float]]:
    """Nodes of the client, and a clock to set."""
    clock = [0.0]
    return Nodes(client, lambda: clock[0]), clock  # type: ignore[arg-type]


async def test_a_list_is_used_for_a_while_and_then_made_again() -> None:
    listed, clock = listing(StubClient([node("a")], [node("a"), node("b")]))
    for seconds, names in ((0, ["a"]), (nodes.SECONDS - 1, ["a"]), (nodes.SECONDS, ["a", "b"])):
        clock[0] = seconds
        assert [each.name for each in await listed.latest() or ()] == names


async def test_where_nodes_may_not_be_listed_they_are_unknown_and_not_asked_for_each_time() -> None:
    listed, _ = listing(StubClient(Forbidden(403, "Forbidden", "no")))
    assert (await listed.latest(), await listed.latest()) == (None, None)


async def test_a_failure_is_passed_on_and_the_list_made_again() -> None:
    listed, _ = listing(StubClient(Transient(500, "", "unwell"), [node("a")]))
    with pytest.raises(Transient):
        await listed.latest()
    assert [each.name for each in await listed.latest() or ()] == ["a"]


async def test_a_job_on_gpus_gets_what_the_nodes_show(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "PAGE", 2)
    api.add(*(node(f"n{number}", str(23028 + number)) for number in range(5)))
    api.add({**node("old"), "metadata": {"name": "old", "labels": {}}})
    api.add(run(0, compute={"gpusPerNode": 1}), run(1, compute={"gpusPerNode": 1}), run(2))
    async with operating(api):
        await wait_for("pods of all", lambda: len(api.of("Job")) == 3)
        await wait_for("status of all", lambda: all("runConfig" in job.get("status", {}) for job in runs(api)))
    gpus = [job["status"].get("gpu") for job in runs(api)]
    shown = {"product": "NVIDIA-A10G", "memory": "23028Mi", "largestMemory": "23032Mi", "nodes": 5}
    assert gpus == [shown] * 2 + [None]
    assert api.requests["list", "nodes"] == 3, "three pages, once for both jobs"


def runs(api: FakeApi) -> list[Object]:
    """The jobs, in order."""
    return sorted(api.of("FineTuneJob"), key=lambda job: str(job["metadata"]["name"]))
