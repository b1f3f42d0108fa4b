"""An API server in memory, over HTTP: listings in pages, watches, conflicts, server-side apply, garbage collection.

With it, the whole operator runs without a cluster. `FakeNodes` plays the Job controller and the kubelet. A `Fault`
changes what a watch delivers; writes and reads are always true.
"""

import asyncio
import copy
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from hone.contract.results import StepResult
from hone.core.kinds import WATCHED
from hone.core.names import MANAGED_BY, MANAGED_BY_LABEL, STEP_LABEL
from hone.core.observed import Object
from tests.unit.core import make

Event = dict[str, Any]
Fault = Callable[[list[Event]], Awaitable[list[Event]]]
"""What a watch delivers of a batch of events: some late, some twice, some never, in another order."""

_KINDS = {
    **{(each.api_version, each.plural): each.kind for each in WATCHED},
    ("events.k8s.io/v1", "events"): "Event",
    ("v1", "nodes"): "Node",
    # kopf waits until the API server knows these two, although it watches neither.
    ("v1", "namespaces"): "Namespace",
    ("apiextensions.k8s.io/v1", "customresourcedefinitions"): "CustomResourceDefinition",
}
_REASONS = {404: "NotFound", 409: "AlreadyExists", 410: "Expired"}
HISTORY = 100_000


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeApi:
    """The objects, and their history.

    Attributes:
        requests: how many requests were made, by (verb, resource); a watch counts once it is opened.
        fault: makes for each watch what happens to its events.
        refuses: what a dry run of an object is answered with; None: it would be accepted.
        url: its address, once started.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.fault: Callable[[], Fault] | None = None
        self.refuses: Callable[[Object], Object | None] = lambda obj: None
        self.url = ""
        self.pages: list[int] = []
        self.on_change: list[Callable[[str, Object], None]] = []
        self.delay = 0.0
        self._version, self._first = 10, 0
        self._history: list[tuple[int, str, Object]] = []
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._streams: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close all connections."""
        for stream in [*self._streams]:
            stream.cancel()
        if self._runner:
            await self._runner.cleanup()

    # What tests and nodes do, without HTTP.

    def add(self, *objects: Object) -> None:
        """Create objects."""
        for obj in objects:
            self._create(copy.deepcopy(obj))

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [obj for (_, name), each in self.objects.items() if name == kind for obj in each.values()]

    def change(self, obj: Object) -> None:
        """Record that `obj`, an object of `objects`, was changed in place."""
        self._record("MODIFIED", obj)

    def delete(self, obj: Object) -> None:
        """Delete an object, and in the background what it alone owns."""
        self.objects[obj["apiVersion"], obj["kind"]].pop(_place(obj), None)
        self._record("DELETED", obj)
        asyncio.get_running_loop().call_later(0.01, self._collect, obj["metadata"]["uid"])

    def restore(self) -> None:
        """The store is an older one, with its revisions: what is watched from a later one shows nothing."""
        self._version, self._first = 10, 0
        self._history.clear()

    def forget_history(self) -> None:
        """End every watch, and answer each that would continue with 410: all have to list again."""
        self._first = self._version + 1
        for stream in [*self._streams]:
            stream.cancel()

    def _collect(self, uid: str) -> None:
        for obj in [obj for each in self.objects.values() for obj in each.values()]:
            owners = obj["metadata"].get("ownerReferences") or []
            left = [owner for owner in owners if owner["uid"] != uid]
            if owners and not left:
                self.delete(obj)

    def _create(self, obj: Object) -> Object:
        metadata = obj["metadata"]
        metadata.setdefault("namespace", make.NAMESPACE)
        metadata.setdefault("uid", f"uid-{self._version}")
        metadata |= {"creationTimestamp": _now(), "generation": 1}
        self.objects.setdefault((obj["apiVersion"], obj["kind"]), {})[_place(obj)] = obj
        self._record("ADDED", obj)
        return obj

    def _record(self, event_type: str, obj: Object) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, event_type, copy.deepcopy(obj)))
        self._changed.set()
        self._changed = asyncio.Event()
        for observer in self.on_change:
            observer(event_type, obj)

    # HTTP.

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        depth = 2 if parts[0] == "api" else 3
        if len(parts) <= depth:
            return web.json_response(_discovery(parts))
        api_version, rest = "/".join(parts[1:depth]), parts[depth:]
        namespace = rest[1] if rest[0] == "namespaces" and len(rest) > 2 else ""
        name_plural, *name = rest[2:] if namespace else rest
        kind = _KINDS[api_version, name_plural]
        verb = _verb(request, name)
        self.requests[verb, name_plural] += 1
        await asyncio.sleep(self.delay)
        if verb == "watch":
            return await self._watch(request, api_version, kind, namespace)
        if verb == "list":
            return web.json_response(self._list(request, api_version, kind, namespace))
        body = json.loads(text) if (text := await request.text()) else {}
        if verb == "rehearse":
            refusal = self.refuses(body)
            return web.json_response(refusal or body, status=refusal["code"] if refusal else 201)
        answer = self._one(verb, (api_version, kind), (namespace, name[0] if name else ""), body, name[1:])
        return web.json_response(answer, status=answer.get("code", 200) if answer.get("kind") == "Status" else 200)

    def _one(self, verb: str, which: tuple[str, str], place: tuple[str, str], body: Object, sub: list[str]) -> Object:
        live = self.objects.get(which, {}).get(place)
        if verb == "create":
            body["metadata"]["namespace"] = place[0]
            taken = (place[0], body["metadata"]["name"]) in self.objects.get(which, {})
            return _status(409) if taken else self._create(body)
        if verb == "apply" and live is None:
            body["metadata"]["namespace"] = place[0]
            return _status(409) if "uid" in body["metadata"] else self._create(body)
        if live is None:
            return _status(404)
        if verb == "delete":
            if body.get("preconditions", {}).get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
                return _status(409)
            self.delete(live)
            return {"kind": "Status", "status": "Success", "code": 200}
        if verb == "update":
            if body["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
                return _status(409)
            live["status"] = body["status"]
            self._record("MODIFIED", live)
        elif verb in ("apply", "patch"):
            _merge(live, body)
            self._record("MODIFIED", live)
        return live

    def _list(self, request: web.Request, api_version: str, kind: str, namespace: str) -> Object:
        everything = self.objects.get((api_version, kind), {})
        mine = (
            obj
            for obj in everything.values()
            if namespace in ("", obj["metadata"]["namespace"]) and _selects(request, obj)
        )
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 0)) or len(everything)
        page = [*itertools.islice(mine, start, start + limit)]
        self.pages.append(len(page))
        metadata = {"resourceVersion": str(self._version)}
        if next(mine, None) is not None:
            metadata["continue"] = str(start + limit)
        items = [_shown(request, {k: v for k, v in obj.items() if k not in ("apiVersion", "kind")}) for obj in page]
        return {"apiVersion": api_version, "kind": f"{kind}List", "metadata": metadata, "items": items}

    async def _watch(self, request: web.Request, api_version: str, kind: str, namespace: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        task = asyncio.current_task()
        assert task
        self._streams.add(task)
        try:
            if since < self._first:
                await _send(response, [{"type": "ERROR", "object": {"kind": "Status", "code": 410}}])
                return response
            fault = self.fault() if self.fault else None
            position = next((i for i, (version, *_) in enumerate(self._history) if version > since), len(self._history))
            while True:
                changed, fresh = self._changed, self._history[position:]
                position = len(self._history)
                events = [
                    {"type": event_type, "object": _shown(request, obj)}
                    for _, event_type, obj in fresh
                    if (obj["apiVersion"], obj["kind"]) == (api_version, kind)
                    and namespace in ("", obj["metadata"]["namespace"])
                    and _selects(request, obj)
                ]
                if events and fault:
                    events = await fault(events)
                await _send(response, events)
                await changed.wait()
        except asyncio.CancelledError:
            return response  # The connection ends.
        finally:
            self._streams.discard(task)


async def _send(response: web.StreamResponse, events: Iterable[Event]) -> None:
    for event in events:
        await response.write(json.dumps(event).encode() + b"\n")


def _place(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _verb(request: web.Request, name: list[str]) -> str:
    if request.method == "GET":
        return "get" if name else "watch" if "watch" in request.query else "list"
    if request.method == "PATCH":
        return "apply" if "apply" in request.headers["Content-Type"] else "patch"
    if request.method == "POST" and request.query.get("dryRun") == "All":
        return "rehearse"
    return {"POST": "create", "PUT": "update", "DELETE": "delete"}[request.method]


def _selects(request: web.Request, obj: Object) -> bool:
    pairs = [pair.partition("=") for pair in request.query.get("labelSelector", "").split(",") if pair]
    labels = obj["metadata"].get("labels") or {}
    return all(labels.get(key) == value if equals else key in labels for key, equals, value in pairs)


def _shown(request: web.Request, obj: Object) -> Object:
    """The object, or mere metadata if the client accepts only that."""
    if "PartialObjectMetadata" not in request.headers.get("Accept", ""):
        return obj
    return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": obj["metadata"]}


def _status(code: int) -> Object:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": _REASONS[code], "message": _REASONS[code]}


def _merge(live: Object, body: Object) -> None:
    for key, value in body.items():
        if isinstance(value, dict) and isinstance(live.get(key), dict):
            _merge(live[key], value)
        elif key == "ownerReferences":
            uids = {owner["uid"] for owner in value}
            live[key] = [*value, *(owner for owner in live.get(key) or [] if owner["uid"] not in uids)]
        else:
            live[key] = value


def _discovery(parts: list[str]) -> Object:
    groups = sorted({api_version for api_version, _ in _KINDS if "/" in api_version})
    if parts == ["api"]:
        return {"versions": ["v1"]}
    if parts == ["apis"]:
        names = [group.split("/") for group in groups]
        return {
            "groups": [
                {
                    "name": group,
                    "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                }
                for group, version in names
            ]
        }
    api_version = "/".join(parts[1:])
    verbs = ["get", "list", "watch", "create", "patch", "delete", "update"]
    mine = [(name, kind) for (version, name), kind in _KINDS.items() if version == api_version]
    return {
        "resources": [
            {"name": name, "kind": kind, "singularName": kind.lower(), "namespaced": True, "verbs": verbs}
            for name, kind in mine
        ]
    }


class FakeNodes:
    """The Job controller and the kubelet: each Job gets its pods, which start, run and succeed.

    Args:
        api: the API server.
        seconds: how long each of a pod's states lasts.

    Attributes:
        jobs: the Jobs that were created, in their order.
        failing: resource, step and attempt (`run-1-train-1`) to the exit code and the result of its pods.
        endless: the steps whose pods run for good.
        address: the address of all pods.
    """

    def __init__(self, api: FakeApi, seconds: float = 0.02) -> None:
        self._api, self._seconds = api, seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self.jobs: list[str] = []
        self.failing: dict[str, tuple[int, StepResult]] = {}
        self.endless: set[str] = set()
        self.address = "127.0.0.1"
        self.result = {"prepare": make.prepared, "train": make.trained, "finish": make.finished}
        api.on_change.append(self._on_change)

    def _on_change(self, event_type: str, obj: Object) -> None:
        if (event_type, obj["kind"]) == ("ADDED", "Job"):
            self.jobs.append(obj["metadata"]["name"])
            task = asyncio.get_running_loop().create_task(self._run(obj))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Object) -> None:
        job.setdefault("status", {})["startTime"] = _now()
        pods = [self._pod(job, index) for index in range(job["spec"]["completions"])]
        job["status"]["active"] = len(pods)
        self._api.add(*pods)
        self._api.change(job)
        step = job["metadata"]["labels"][STEP_LABEL]
        running = {"phase": "Running", "podIP": self.address, "containerStatuses": [{"state": make.RUNNING}]}
        attempt = f"{job['metadata']['labels']['hone.dev/job']}-{step}-{job['metadata']['name'].rpartition('-')[2]}"
        code, result = self.failing.get(attempt, (0, self.result[step]()))
        done = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"state": make.exited(code, result)}]}
        for status in (running,) if step in self.endless else (running, {**running, **done}):
            await asyncio.sleep(self._seconds)
            for pod in pods:
                live = self._api.objects["v1", "Pod"].get(_place(pod))
                if live is None:
                    return
                live["status"] = status
                self._api.change(live)
        if step in self.endless or self._api.objects["batch/v1", "Job"].get(_place(job)) is not job:
            return
        condition = {"type": "Complete", "status": "True", "reason": "CompletionsReached"}
        if code:
            pod = f"{job['metadata']['namespace']}/{pods[0]['metadata']['name']}"
            message = f"Container c for pod {pod} failed with exit code {code} matching FailJob rule"
            condition = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}
        count = {"failed" if code else "succeeded": len(pods)}
        job["status"] = {"startTime": job["status"]["startTime"], **count, "conditions": [condition]}
        self._api.change(job)

    def _pod(self, job: Object, index: int) -> Object:
        template, name = job["spec"]["template"], job["metadata"]["name"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        labels = {
            **template["metadata"]["labels"],
            MANAGED_BY_LABEL: MANAGED_BY,
            "batch.kubernetes.io/job-name": name,
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-{index}",
                "namespace": job["metadata"]["namespace"],
                "labels": labels,
                "annotations": dict(template["metadata"]["annotations"]),
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Pending"},
        }
