"""The whole operator before an API server in memory: what a life costs, and that faults of watches change nothing."""

import asyncio
import copy
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import kopf
import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from hone.contract.runconfig import METRICS_PORT
from hone.core.kinds import KINDS
from hone.core.network import NetworkPeers
from hone.core.observed import Object
from hone.core.settings import Settings
from hone.core.trim import trimmed
from hone.runtime.metrics import RESULTS
from hone.runtime.operator import Operator
from hone.runtime.options import Options
from hone.runtime.packing import pack
from tests.unit.core import make
from tests.unit.runtime.fake_api import Event, FakeApi, FakeNodes, Fault

SETTINGS = Settings(network_policies=NetworkPeers(), progress_seconds=60.0, resync_seconds=600.0)
INDEXED = ("FineTuneJob", "Job", "Pod", "PersistentVolumeClaim", "ConfigMap", "NetworkPolicy")
SILENT_ADDRESS = "127.0.0.9"
WATCHES = ("list", "watch")
"""Verbs of the watches, which cost nothing a run."""


@asynccontextmanager
async def operating(api: FakeApi, **settings: Any) -> AsyncIterator[Operator]:
    """An operator that serves `api`."""
    configuration = Configuration()
    configuration.host, configuration.retries = api.url, False
    options = Options(settings=Settings(**{**vars(SETTINGS), **settings}), drain_seconds=1.0, pod_name="test")
    operator = Operator(KINDS, configuration, options)
    operator.start()
    try:
        yield operator
    finally:
        await operator.stop()


@pytest.fixture(autouse=True, scope="module")
def _no_tasks_of_kopf_left() -> Iterator[None]:
    """Collect kopf's abandoned tasks here.

    Collected later, while Python 3.11 parses source, their report would end that with a SystemError: it parses, too.
    """
    yield
    gc.collect()


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    server = FakeApi()
    await server.start()
    server.add(make.claim("base-models"), make.config_map("reviews", **{"train.jsonl": "{}"}))
    yield server
    await server.stop()


def run(number: int = 0, **spec: Any) -> Object:
    """A FineTuneJob."""
    return make.finetunejob(f"run-{number}", uid=f"{number:08d}-aaaa", **spec)


def phases(api: FakeApi) -> Counter[str]:
    return Counter((obj.get("status") or {}).get("phase", "") for obj in api.of("FineTuneJob"))


async def wait_for(what: str, probe: Callable[[], Any], seconds: float = 30.0) -> None:
    """Poll until `probe` returns something true."""
    for _ in range(int(seconds / 0.02)):
        if probe():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


async def live(api: FakeApi, count: int = 1, seconds: float = 30.0, failing: bool = True) -> FakeNodes:
    """As many lives at once, each to its end. The pods of one of them fail once."""
    nodes = FakeNodes(api)
    if failing:
        nodes.failing["run-1-train-1"] = (70, make.verdict("Hung", "no rank made a step"))
    api.add(*(run(number) for number in range(count)))
    done = f"{count} runs to succeed"
    await wait_for(done, lambda: phases(api)["Succeeded"] == count, seconds)
    return nodes


def reasons(api: FakeApi, condition: str) -> Counter[str]:
    """The reasons of a condition of all runs."""
    conditions = [each for obj in api.of("FineTuneJob") for each in (obj.get("status") or {}).get("conditions", ())]
    return Counter(each["reason"] for each in conditions if each["type"] == condition)


def end_of(api: FakeApi) -> list[Any]:
    """What lives ended as, without times."""
    ends = []
    for obj in sorted(api.of("FineTuneJob"), key=lambda obj: str(obj["metadata"]["name"])):
        status = copy.deepcopy(obj["status"])
        for attempt in status["attempts"]:
            attempt.pop("startTime"), attempt.pop("endTime")
        conditions = [(each["type"], each["status"], each["reason"]) for each in status.pop("conditions")]
        for key in ("startTime", "completionTime", "progress"):
            status.pop(key, None)
        ends.append((status, conditions))
    return ends


def run_requests(api: FakeApi) -> Counter[tuple[str, str]]:
    """The requests of runs, without those of the watches."""
    return Counter({key: count for key, count in api.requests.items() if key[0] not in WATCHES})


def expected_requests(count: int) -> Counter[tuple[str, str]]:
    """What so many lives of three Jobs cost. One request more, of whatever kind, is to be explained here."""
    each = {
        ("get", "configmaps"): 1,  # the user's data: no watch shows which keys it has
        ("create", "networkpolicies"): 1,
        ("create", "configmaps"): 1,
        ("create", "persistentvolumeclaims"): 2,
        ("rehearse", "jobs"): 1,  # train's, before prepare begins
        ("create", "jobs"): 3,
        # Prepare, train and finish begin; training's pods have started; the artifact is there; the end.
        ("update", "finetunejobs"): 6,
        ("create", "events"): 3,  # prepare and train succeeded, and the whole
    }
    return Counter({key: number * count for key, number in each.items()})


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.slow
async def test_a_life_costs_eighteen_requests_however_many_there_are(api: FakeApi, count: int) -> None:
    async with operating(api):
        await live(api, count, failing=False)
        await asyncio.sleep(0.3)
    requests = run_requests(api)
    # Where pods end soon after they start, or a Job soon after its artifact is there, one status tells both.
    most = expected_requests(count)
    assert requests == most | {("update", "finetunejobs"): requests["update", "finetunejobs"]}
    assert requests["update", "finetunejobs"] <= most["update", "finetunejobs"]
    assert most.total() == 18 * count


async def test_nothing_is_read_of_a_run_that_the_watches_show(api: FakeApi) -> None:
    async with operating(api):
        await live(api)
        listed = {name: count for (verb, name), count in api.requests.items() if verb == "list"}
    reads = {key for key in run_requests(api) if key[0] == "get"}
    assert reads == {("get", "configmaps")}, "only the user's ConfigMap, whose keys no watch shows"
    assert listed["pods"] == 1 and listed["jobs"] == 1


async def test_no_event_makes_kopf_copy_an_object(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Any] = []
    build = kopf.DiffBaseStorage.build
    monkeypatch.setattr(
        kopf.DiffBaseStorage, "build", lambda self, **arguments: copied.append(arguments) or build(self, **arguments)
    )
    async with operating(api):
        await live(api, failing=False)
    assert not copied, f"{len(copied)} objects"


@asynccontextmanager
async def silent_trainers(api: FakeApi, count: int) -> AsyncIterator[Counter[str]]:
    """Runs whose pods train for good and refuse to tell their progress. Yields how often they were asked."""
    requests = Counter[str]()

    async def refuse(request: web.Request) -> web.Response:
        requests[request.path] += 1
        return web.Response(status=503)

    app = web.Application()
    app.router.add_get("/progress", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, SILENT_ADDRESS, METRICS_PORT).start()
    nodes = FakeNodes(api)
    nodes.address, nodes.endless = SILENT_ADDRESS, {"train"}
    api.add(*(run(number) for number in range(count)))
    try:
        yield requests
    finally:
        await runner.cleanup()


def reconciles(operator: Operator) -> float:
    metrics = operator.metrics.registry
    labels = [{"controller": "finetunejob", "result": result} for result in RESULTS]
    return sum(metrics.get_sample_value("controller_runtime_reconcile_total", each) or 0.0 for each in labels)


@pytest.mark.slow
async def test_trainers_that_do_not_report_cost_neither_reconciles_nor_requests(api: FakeApi) -> None:
    async with operating(api, progress_seconds=0.02) as operator, silent_trainers(api, 10) as reads:
        await wait_for("all to be known to be silent", lambda: reasons(api, "ProgressAvailable")["Unreachable"] == 10)
        await asyncio.sleep(0.3)  # the reconciles that the last status brings
        before, requests, count = reconciles(operator), run_requests(api), reads.total()
        await wait_for("all to be asked again", lambda: reads.total() >= count + 30)
        assert (reconciles(operator), run_requests(api)) == (before, requests)


async def test_runs_that_are_being_deleted_or_are_gone_are_not_asked_any_longer(api: FakeApi) -> None:
    async with operating(api, progress_seconds=0.02) as operator, silent_trainers(api, 2) as reads:
        await wait_for("both to be asked", lambda: reads.total() >= 4 and len(operator._readings._pods) == 2)
        leaving, gone = api.of("FineTuneJob")
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        api.change(leaving)
        api.delete(gone)
        await wait_for("no more pods to ask", lambda: not operator._readings._pods)


def delayed(rng: random.Random) -> Fault:
    async def fault(events: list[Event]) -> list[Event]:
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        return events

    return fault


def repeated(rng: random.Random) -> Fault:
    seen: list[Event] = []

    async def fault(events: list[Event]) -> list[Event]:
        seen.extend(events)
        return [*events, *rng.sample(seen, min(3, len(seen)))]

    return fault


def reordered(rng: random.Random) -> Fault:
    async def fault(events: list[Event]) -> list[Event]:
        await asyncio.sleep(0.05)  # so that there is something to shuffle
        return rng.sample(events, len(events))

    return fault


def lost(rng: random.Random, api: FakeApi) -> Fault:
    """Events are lost, and some time later the watch finds that it has to list again."""

    async def fault(events: list[Event]) -> list[Event]:
        delivered = [event for event in events if rng.random() > 0.4]
        if len(delivered) < len(events):
            asyncio.get_running_loop().call_later(0.4, api.forget_history)
        return delivered

    return fault


FAULTS: dict[str, Callable[[random.Random, FakeApi], Fault]] = {
    "late": lambda rng, api: delayed(rng),
    "twice, and old ones again": lambda rng, api: repeated(rng),
    "in another order": lambda rng, api: reordered(rng),
    "missed until the next listing": lost,
}


@pytest.mark.slow
async def test_a_life_ends_the_same_whatever_the_watches_deliver(api: FakeApi) -> None:
    async with operating(api):
        nodes = await live(api, 3)
    expected, jobs = end_of(api), sorted(nodes.jobs)
    assert len(jobs) == 10, "three steps of three runs, and one again"
    assert expected[1][0]["attempts"][1]["failure"]["message"] == "no rank made a step"
    for name, make_fault in FAULTS.items():
        other = FakeApi()
        await other.start()
        other.add(make.claim("base-models"), make.config_map("reviews", **{"train.jsonl": "{}"}))
        rng = random.Random(1)
        other.fault = lambda make_fault=make_fault, rng=rng, other=other: make_fault(rng, other)  # type: ignore[misc]
        async with operating(other):
            nodes = await live(other, 3, seconds=60)
        assert end_of(other) == expected, name
        assert sorted(nodes.jobs) == jobs, f"{name}: an attempt was made twice"
        await other.stop()


@pytest.mark.slow
async def test_an_operator_that_starts_late_reads_what_is_there_before_it_acts(api: FakeApi) -> None:
    async with operating(api):
        nodes = FakeNodes(api, seconds=0.3)
        api.add(*(run(number) for number in range(3)))
        await wait_for("the first Jobs", lambda: len(nodes.jobs) == 3)
    async with operating(api):
        await wait_for("the runs to succeed", lambda: phases(api)["Succeeded"] == 3)
    assert len(nodes.jobs) == 9


@pytest.mark.slow
async def test_listings_come_in_pages_and_the_rest_is_read_too(api: FakeApi) -> None:
    for number in range(120):
        api.add({**run(number, suspend=True), "kind": "FineTuneJob"})
    async with operating(api):
        await wait_for("all to be seen", lambda: phases(api)["Suspended"] == 120)
    assert max(api.pages) == 25


async def test_a_finished_run_takes_few_bytes_of_memory(api: FakeApi) -> None:
    """10,000 of them, with the Jobs and pods that Kubernetes keeps for a day, and 500 running ones: below 150 MiB."""

    def objects() -> list[Object]:
        return [obj for kind in INDEXED for obj in api.of(kind) if obj["metadata"]["name"].startswith("run-0")]

    async with operating(api):
        await live(api, failing=False)
        what = "three Jobs and their pods; two claims, ConfigMap, NetworkPolicy; the resource"
        await wait_for(what, lambda: len(objects()) == 11)
    packed = sum(len(pack(trimmed(obj))) for obj in objects())
    assert packed < 3500, f"{packed} bytes"


async def test_of_claims_and_config_maps_only_the_metadata_is_asked_for(api: FakeApi) -> None:
    shown: list[str] = []
    original = FakeApi._list

    def listing(self: FakeApi, request: Any, api_version: str, kind: str, namespace: str) -> Object:
        if "PartialObjectMetadataList" in request.headers.get("Accept", ""):
            shown.append(kind)
        return original(self, request, api_version, kind, namespace)

    FakeApi._list = listing  # type: ignore[method-assign]
    try:
        async with operating(api) as operator:
            await wait_for("all to be listed", lambda: operator.ready)
    finally:
        FakeApi._list = original  # type: ignore[method-assign]
    assert sorted(shown) == ["ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget"]


async def test_what_trains_job_would_be_refused_for_is_told_before_any_pod_exists(api: FakeApi) -> None:
    words = "spec.template.spec.affinity: Invalid value"
    api.refuses = lambda job: {"kind": "Status", "code": 422, "reason": "Invalid", "message": words}
    api.add(run(0))
    async with operating(api):
        await wait_for("Stalled", lambda: reasons(api, "Stalled")["Refused"])
    (obj,) = api.of("FineTuneJob")
    (entry,) = (each for each in obj["status"]["conditions"] if each["type"] == "Stalled")
    assert entry["status"] == "True" and "-train-1: " in entry["message"] and words in entry["message"]
    assert not [verb for verb, plural in api.requests if verb == "create" and plural != "events"]


@pytest.mark.parametrize("code", [400, 403, 409])
async def test_a_dry_run_that_is_refused_for_another_reason_stops_nothing(api: FakeApi, code: int) -> None:
    api.refuses = lambda job: {"kind": "Status", "code": code, "message": "no"}
    async with operating(api):
        await live(api, failing=False)
    assert api.requests["rehearse", "jobs"] == 1
