"""A controller with a client that lies in memory: what is written in which order, and when it looks again."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from hone.core.kind import Kind
from hone.core.observed import Object, Observed, Ref
from hone.core.plan import Apply, Delete, Event, EventType, Plan
from hone.core.settings import Settings
from hone.core.subject import Subject
from hone.runtime.controller import Controller, Key
from hone.runtime.errors import ApiError, Conflict, Forbidden, Transient
from hone.runtime.events import EventRecorder
from hone.runtime.evidence import EvidenceCache
from hone.runtime.index import Index
from hone.runtime.metrics import Metrics
from hone.runtime.nodes import Nodes
from hone.runtime.observe import Observer
from hone.runtime.readings import Readings

KEY = Key("ns", "a")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHILD: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child"}}
FULL = Plan(
    create=(CHILD,),
    apply=(Apply({**CHILD, "kind": "Service"}),),
    delete=(Delete(Ref("v1", "Pod", "old"), "pod-uid"),),
    status={"phase": "Training"},
    events=(Event(EventType.NORMAL, "Started", "it started"),),
    requeue_after=7.0,
)


def resource(**metadata: Any) -> Object:
    meta = {"name": "a", "namespace": "ns", "uid": "uid-1", "resourceVersion": "1", **metadata}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": meta, "spec": {}}


def _do_nothing(kind: str, namespace: str, name: str) -> None:
    """No progress is read here."""


class FakeClient:
    """Answers with one resource, writes down what is written, and raises what `fails` says for a verb and kind."""

    def __init__(self, obj: Object | None) -> None:
        self.obj = obj
        self.writes: list[str] = []
        self.reads = 0
        self.fails: dict[str, ApiError | Exception] = {}

    async def get(self, namespace: str, ref: Ref) -> Object | None:
        self.reads += 1
        self._may_fail(f"get {ref.kind}")
        return self.obj if ref.kind == "FineTuneJob" else None

    async def list(self, *_: str) -> list[Object]:
        return []

    async def create(self, namespace: str, body: Object) -> Object:
        return self._write(f"create {body['kind']}", body)

    async def apply(self, namespace: str, body: Object, field_manager: str) -> Object:
        return self._write(f"apply {body['kind']}", body)

    async def delete(self, namespace: str, ref: Ref, uid: str) -> None:
        self._write(f"delete {ref.kind}", {})

    async def update_status(self, obj: Object, status: dict[str, Any]) -> Object:
        self.status_of = obj
        return self._write("status", {**obj, "status": status})

    def _write(self, what: str, answer: Object) -> Object:
        self._may_fail(what)
        self.writes.append(what)
        return answer

    def _may_fail(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]


class Case:
    """A controller of one kind whose decisions are given."""

    def __init__(
        self,
        plan: Plan | Exception,
        obj: Object | None = None,
        idle: bool = False,
        is_drastic: Callable[[Subject, Observed, Plan], bool] = lambda subject, observed, plan: False,
        refs: tuple[Ref, ...] = (),
        follows: tuple[Ref, ...] = (),
    ) -> None:
        self.client: Any = FakeClient(obj or resource())
        self.index, self.seconds = Index(), 0.0
        self.index.put(obj or resource())
        self.metrics = Metrics()
        self.refused: list[tuple[str, str, Plan]] = []

        def reconcile(subject: Subject, observed: Observed, now: datetime) -> Plan:
            if isinstance(plan, Exception):
                raise plan
            return plan

        def refused(obj: Object, plan: Plan, what: str, words: str, now: datetime) -> Plan:
            self.refused.append((what, words, plan))
            return Plan(status={"phase": "Refused"})

        kind = Kind(
            name="FineTuneJob", plural="finetunejobs", api_version="hone.dev/v1alpha1",
            subject=Subject, children=(), refs=lambda subject, fetched: refs, may_lack=lambda subject, ref: False,
            reconcile=reconcile, reads_nodes=lambda subject: False, reads_peers=lambda subject: False,
            progress_target=lambda obj, pods: None,
            is_drastic=is_drastic, idle=lambda obj: idle, follows=lambda obj: follows, refused=refused,
        )  # fmt: skip
        readings = Readings(None, 10.0)  # type: ignore[arg-type]
        observer = Observer(self.client, self.index, EvidenceCache(), readings, Nodes(self.client), _do_nothing)
        recorder = EventRecorder(self.client, self.metrics, lambda: NOW, "test")
        self.controller = Controller(
            kind, self.client, observer, recorder, Settings(), self.metrics, lambda: NOW, clock=lambda: self.seconds
        )

    async def look(self) -> float | None:
        """Work on the key once; returns when it is looked at again, None for never."""
        delays: list[float] = []
        queue: Any = self.controller.queue
        queue.add_after = lambda key, seconds: delays.append(seconds)
        await self.controller._process(KEY)
        return delays[0] if delays else None

    def count(self, result: str) -> float | None:
        labels = {"controller": "finetunejob", "result": result}
        return self.metrics.registry.get_sample_value("controller_runtime_reconcile_total", labels)


async def test_children_come_before_status_and_status_before_events() -> None:
    case = Case(FULL)
    assert await case.look() == 7.0
    assert case.client.writes == ["create ConfigMap", "apply Service", "delete Pod", "status", "create Event"]
    assert case.count("requeue_after") == 1


async def test_a_status_that_stands_there_is_not_written_again() -> None:
    case = Case(Plan(status={"phase": "Training"}), {**resource(), "status": {"phase": "Training"}})
    await case.look()
    assert case.client.writes == []


async def test_with_nothing_due_the_next_look_is_the_jittered_resync() -> None:
    delays = [await Case(Plan()).look() for _ in range(20)]
    assert all(delay and 1620 <= delay <= 1980 for delay in delays) and len(set(delays)) > 1


async def test_an_idle_resource_costs_nothing() -> None:
    case = Case(FULL, idle=True)
    assert await case.look() is None, "and not even a timer"
    assert case.client.writes == [] and case.client.reads == 0


async def test_what_the_watches_have_shown_is_not_read_again() -> None:
    case = Case(FULL)
    await case.look()
    assert case.client.reads == 0


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "ConfigMap"])
async def test_what_a_user_may_have_created_just_now_is_read_if_no_watch_has_shown_it(kind: str) -> None:
    case = Case(Plan(), refs=(Ref("v1", kind, "data"),))
    await case.look()
    assert case.client.reads == 1


@pytest.mark.parametrize("error", [Conflict(409, "AlreadyExists", "it is there"), Transient(500, "", "unwell")])
async def test_after_a_write_that_failed_all_is_read_from_the_api_server_once(error: ApiError) -> None:
    case = Case(FULL)
    case.client.fails["create ConfigMap"] = error
    await case.look()
    assert case.client.reads == 0
    case.client.fails.clear()
    await case.look()
    assert case.client.reads == 1
    await case.look()
    assert case.client.reads == 1


async def test_a_drastic_plan_is_made_again_from_what_the_api_server_has() -> None:
    newer = resource(resourceVersion="2")
    case = Case(FULL, is_drastic=lambda subject, observed, plan: subject.resource["metadata"]["resourceVersion"] == "1")
    case.client.obj = newer
    await case.look()
    assert case.client.reads == 1
    assert case.client.status_of == newer


async def test_all_is_read_from_the_api_server_now_and_then() -> None:
    case = Case(Plan())
    await case.look()
    case.seconds = Settings().resync_seconds - 1
    await case.look()
    assert case.client.reads == 0
    case.seconds += 2
    await case.look()
    assert case.client.reads == 1


async def test_of_a_chain_only_what_a_resource_follows_itself_is_read_from_the_api_server() -> None:
    near, far = (Ref("hone.dev/v1alpha1", "FineTuneJob", name) for name in ("near", "far"))
    case = Case(Plan(), refs=(near, far), follows=(near,))
    for number, ref in enumerate((near, far)):
        case.index.put(resource(name=ref.name, uid=f"{number}-uid"))
    await case.look()
    case.seconds = Settings().resync_seconds + 1
    await case.look()
    assert case.client.reads == 2, "itself, and the next one"


async def test_a_resource_that_is_being_deleted_is_left_to_garbage_collection() -> None:
    case = Case(FULL, resource(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert await case.look() is None
    assert case.client.writes == []


async def test_a_child_that_appeared_meanwhile_stops_the_plan_and_is_looked_at_soon() -> None:
    case = Case(FULL)
    case.client.fails["create ConfigMap"] = Conflict(409, "AlreadyExists", "it is there")
    delay = await case.look()
    assert delay is not None and delay < 1
    assert case.client.writes == []
    assert case.count("requeue") == 1


async def test_a_pod_made_anew_under_its_name_is_not_deleted_and_the_plan_goes_on() -> None:
    case = Case(FULL)
    case.client.fails["delete Pod"] = Conflict(409, "Conflict", "another uid")
    await case.look()
    assert case.client.writes == ["create ConfigMap", "apply Service", "status", "create Event"]


async def test_a_stale_status_is_not_written_and_tells_no_event() -> None:
    case = Case(FULL)
    case.client.fails["status"] = Conflict(409, "Conflict", "changed")
    delay = await case.look()
    assert delay is not None and delay < 1
    assert "create Event" not in case.client.writes


async def test_a_refusal_is_told_in_the_api_servers_words_and_tried_again_slowly() -> None:
    case = Case(FULL)
    case.client.fails["create ConfigMap"] = Forbidden(403, "Forbidden", "exceeded quota")
    delay = await case.look()
    assert delay is not None and 60 <= delay <= 66
    assert case.refused == [("ConfigMap/child", "exceeded quota", FULL)]
    assert case.client.writes == ["status"], "and nothing of the rest of the plan"


@pytest.mark.parametrize(("retry_after", "least"), [(None, 0.0), (9.0, 9.0)])
async def test_a_passing_error_backs_off(retry_after: float | None, least: float) -> None:
    case = Case(FULL)
    case.client.fails["create ConfigMap"] = Transient(429, "TooManyRequests", "slow down", retry_after)
    delay = await case.look()
    assert delay is not None and least <= delay < least + 1
    assert case.count("error") == 1


async def test_an_event_that_cannot_be_written_fails_nothing() -> None:
    case = Case(FULL)
    case.client.fails["create Event"] = Transient(500, "InternalError", "unwell")
    assert await case.look() == 7.0
    assert case.metrics.registry.get_sample_value("hone_event_failures_total") == 1


async def test_a_bug_is_logged_counted_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(ZeroDivisionError("a bug"))
    with caplog.at_level(logging.ERROR):
        delay = await case.look()
    assert delay is not None and delay < 1
    labels = {"controller": "finetunejob"}
    assert case.metrics.registry.get_sample_value("controller_runtime_reconcile_panics_total", labels) == 1
    assert any(record.exc_info for record in caplog.records)


async def test_a_resource_that_is_gone_takes_its_gauges_along() -> None:
    case = Case(FULL)
    await case.look()
    assert b'name="a"' in case.metrics.text()
    case.index.remove(resource())
    assert await case.look() is None
    assert b'name="a"' not in case.metrics.text()
