"""The client for all API calls of the operator: raw dicts, typed errors, a hook for tests."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

from hone.core.names import plural
from hone.core.observed import Object, Ref
from hone.runtime.errors import ApiError, NotFound, Transient, from_status
from hone.runtime.metrics import Metrics

REQUEST_TIMEOUT_SECONDS = 30.0
USER_AGENT = "hone-operator"
FIELD_MANAGER = "hone"


@dataclass(frozen=True)
class Call:
    """One API call.

    Attributes:
        number: which call of this client it is, from 1.
        verb: get, list, create, rehearse, apply, patch, delete, update_status or discover.
        kind: kind of the object, such as `Job`.
        namespace: its namespace.
        name: its name; empty for a list.
    """

    number: int
    verb: str
    kind: str
    namespace: str
    name: str


class Hook(Protocol):
    """Called around every call; what it raises reaches the caller. For tests that fail, delay or crash a call."""

    async def before(self, call: Call) -> None:
        """Called before anything is sent."""

    async def after(self, call: Call) -> None:
        """Called when the API server has answered, before the answer is returned."""


def path(api_version: str, kind: str, namespace: str, name: str = "", subresource: str = "") -> str:
    """The URL path of an object, or of its collection where `name` is empty."""
    parts = [
        group_path(api_version),
        *(["namespaces", namespace] if namespace else []),
        plural(kind),
        name,
        subresource,
    ]
    return "/".join(part for part in parts if part)


def group_path(api_version: str) -> str:
    """The URL path of a group and version."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


class _Http(NamedTuple):
    """How a verb maps to HTTP; `named` and `kinds`: whether the URL holds the object's name, and its kind."""

    method: str
    content_type: str = "application/json"
    named: bool = True
    kinds: bool = True
    subresource: str = ""


_VERBS = {
    "get": _Http("GET"),
    "list": _Http("GET", named=False),
    "create": _Http("POST", named=False),
    "rehearse": _Http("POST", named=False),
    "apply": _Http("PATCH", "application/apply-patch+yaml"),
    "patch": _Http("PATCH", "application/merge-patch+json"),
    "delete": _Http("DELETE"),
    "discover": _Http("GET", kinds=False),
    "update_status": _Http("PUT", subresource="status"),
}
_FORCE = ("force", "true")


class Client:
    """Reads and writes objects of the cluster.

    Every method raises the errors of `hone.runtime.errors`: NotFound, Conflict, Forbidden, Invalid, Transient.

    Args:
        api: the connection.
        metrics: counts the calls.
        hook: called around every call.
        field_manager: the writer that the API server records, if `apply` names no other.
        wrote: called with each object that a write changed, as the API server answered it.
        deleted: called with apiVersion, kind and metadata of each object that a deletion of ours removed.

    Attributes:
        calls: how many calls were made, by (verb, kind).
    """

    def __init__(
        self,
        api: ApiClient,
        metrics: Metrics,
        hook: Hook | None = None,
        field_manager: str = FIELD_MANAGER,
        wrote: Callable[[Object], None] = lambda obj: None,
        deleted: Callable[[Object], None] = lambda obj: None,
    ) -> None:
        self._api = api
        self._api.user_agent = USER_AGENT
        self._writer = [("fieldManager", field_manager)]
        self._metrics = metrics
        self._hook = hook
        self._wrote, self._deleted = wrote, deleted
        self._number = 0
        self.calls: Counter[tuple[str, str]] = Counter()

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, namespace: str, ref: Ref) -> Object | None:
        """The current object, or None if there is none of that name."""
        try:
            return await self._call("get", ref, namespace)
        except NotFound:
            return None

    async def list(self, namespace: str, api_version: str, kind: str, label_selector: str) -> Sequence[Object]:
        """The objects of a kind that match the selector; with apiVersion and kind, which lists omit."""
        query = [("labelSelector", label_selector)] if label_selector else []
        answer = await self._call("list", Ref(api_version, kind, ""), namespace, query=query)
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer.get("items") or []]

    async def pages(self, api_version: str, kind: str, label_selector: str, limit: int) -> AsyncIterator[Object]:
        """The objects of a kind in the whole cluster that match the selector, of which so many are read at a time."""
        token = ""
        while True:
            query = [
                ("labelSelector", label_selector),
                ("limit", str(limit)),
                *([("continue", token)] if token else []),
            ]
            answer = await self._call("list", Ref(api_version, kind, ""), "", query=query)
            for item in answer.get("items") or []:
                yield item
            token = (answer.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def revision(self, namespace: str, api_version: str, kind: str) -> int:
        """The revision that the API server has now, by a consistent list of a kind; 0 if it does not say."""
        answer = await self._call("list", Ref(api_version, kind, ""), namespace, query=[("limit", "1")])
        version = str(answer["metadata"].get("resourceVersion", ""))
        return int(version) if version.isdigit() else 0

    async def create(self, namespace: str, body: Object) -> Object:
        """Create an object.

        Raises:
            Conflict: one of that name exists.
        """
        return await self._write("create", ref_of(body), namespace, body, self._writer)

    async def rehearse(self, namespace: str, body: Object) -> None:
        """Ask, by a dry run, whether the API server would create an object; nothing is stored.

        Raises:
            Conflict: one of that name exists.
            Invalid: it would be refused.
        """
        await self._call("rehearse", ref_of(body), namespace, body, [*self._writer, ("dryRun", "All")])

    async def apply(self, namespace: str, body: Object, field_manager: str) -> Object:
        """Server-side apply: we own the fields in `body`, and give up those that it omits."""
        return await self._write("apply", ref_of(body), namespace, body, [("fieldManager", field_manager), _FORCE])

    async def patch(self, namespace: str, ref: Ref, body: Object) -> Object:
        """JSON merge patch."""
        return await self._write("patch", ref, namespace, body, self._writer)

    async def delete(self, namespace: str, ref: Ref, uid: str) -> None:
        """Delete the object with that uid in the background; not an error if it is gone already.

        Raises:
            Conflict: an object of that name has another uid.
        """
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            answer = await self._call("delete", ref, namespace, body)
        except NotFound:
            answer = {}
        if answer.get("kind") == ref.kind:
            self._wrote(answer)  # It has finalizers, and remains until they are removed.
        else:
            metadata = {"namespace": namespace, "name": ref.name, "uid": uid}
            self._deleted({"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata})

    async def update_status(self, resource: Object, status: dict[str, Any]) -> Object:
        """Replace the status of `resource`, as it was read.

        Raises:
            Conflict: it changed since.
            NotFound: it is gone.
        """
        # The API server validates the whole object, so the rest is sent as well, and ignored.
        metadata = {key: value for key, value in resource["metadata"].items() if key != "managedFields"}
        body = {**resource, "metadata": metadata, "status": status}
        return await self._write("update_status", ref_of(resource), metadata["namespace"], body, self._writer)

    async def kinds(self, api_version: str) -> set[str]:
        """The kinds that the API server knows in a group and version; empty if it does not know the group."""
        try:
            answer = await self._call("discover", Ref(api_version, "APIResourceList", ""), "")
        except NotFound:
            return set()
        return {entry["kind"] for entry in answer.get("resources") or []}

    async def _write(
        self, verb: str, ref: Ref, namespace: str, body: Object, query: Sequence[tuple[str, str]]
    ) -> Object:
        answer = await self._call(verb, ref, namespace, body, query)
        self._wrote(answer)
        return answer

    async def _call(
        self, verb: str, ref: Ref, namespace: str, body: Object | None = None, query: Sequence[tuple[str, str]] = ()
    ) -> Object:
        self._number += 1
        call = Call(self._number, verb, ref.kind, namespace, ref.name)
        self.calls[verb, ref.kind] += 1
        if self._hook:
            await self._hook.before(call)
        failure: ApiError | None = None
        answer: Object = {}
        try:
            answer = await self._send(_VERBS[verb], ref, namespace, body, query)
        except ApiError as error:
            failure = error
        if self._hook:
            await self._hook.after(call)
        if failure:
            raise failure
        return answer

    async def _send(
        self, http: _Http, ref: Ref, namespace: str, body: Object | None, query: Sequence[tuple[str, str]]
    ) -> Object:
        if http.kinds:
            where = path(ref.api_version, ref.kind, namespace, ref.name if http.named else "", http.subresource)
        else:
            where = group_path(ref.api_version)
        headers = {"Accept": "application/json", "Content-Type": http.content_type}
        request = await self._api.param_serialize(
            http.method, where, query_params=[*query], header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
            response = await self._api.call_api(*request, _request_timeout=timeout)
            data: bytes = await response.read()  # type: ignore[no-untyped-call]
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._metrics.request(http.method, "<error>")
            raise Transient(0, "", f"{http.method} {where}: {error or type(error).__name__}") from error
        self._metrics.request(http.method, str(response.status))
        try:
            answer = json.loads(data)
        except ValueError:
            answer = data.decode(errors="replace")
        if response.status >= 300 or not isinstance(answer, dict):
            raise from_status(response.status, answer, _seconds(response.headers.get("Retry-After")))
        return answer


def ref_of(body: Object) -> Ref:
    """The Ref of an object with apiVersion, kind and metadata.name."""
    return Ref(body["apiVersion"], body["kind"], body["metadata"].get("name", ""))


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
