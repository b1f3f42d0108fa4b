"""kopf, used only as a source of listings and watch events: no finalizers, no annotations, no state of its own.

It runs in a thread with its own event loop, because it cancels every task of its loop when it stops. Listings are taken
from its session page by page and kopf is shown none of their objects, or it would keep a task and a memory for each.
"""

import asyncio
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import kopf
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from yarl import URL

from hone.core.kinds import Watched
from hone.core.observed import Object
from hone.core.trim import trimmed
from hone.runtime.client import USER_AGENT, path
from hone.runtime.coverage import Coverage
from hone.runtime.listings import Page
from hone.runtime.pages import read_page

MAX_ATTEMPT_SECONDS = 30.0
PAGE_SIZE = 25
"""Objects per page of a listing. An object may have 1.5 MB, and the text of a page is in memory whole."""
RETRY_SECONDS = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0)
"""Pauses between tries of a listing or watch that failed; the last one holds for all further tries."""
METADATA = "application/json;as={};g=meta.k8s.io;v=v1"
"""The media type of objects, or lists of objects, without anything but their metadata."""


class _Watch(NamedTuple):
    watched: Watched
    namespace: str


class Endless:
    """Pauses without end: kopf ends all watches, those of other namespaces too, once one has no pause left."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1]))


class NoDifferences(kopf.DiffBaseStorage):
    """Tells handlers nothing of what changed: for that kopf would copy each object whole, at each event."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        """Nothing."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """None, so nothing is compared."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Write nothing."""


class Watcher:
    """Watches the cluster, and passes what it sees, trimmed, to the loop that started it.

    Args:
        watched: the kinds to watch.
        namespaces: the namespaces to watch; none: all.
        configuration: how to reach the API server; read again when a token was refused.
        saw: called with the type and the object of each event.
        listed: called with each page of each listing.
        on_listed: called once each kind was listed in each namespace that is not away.

    Attributes:
        coverage: what is watched.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        namespaces: Sequence[str],
        configuration: Configuration,
        saw: Callable[[str | None, Object], None],
        listed: Callable[[Page], None],
        on_listed: Callable[[], None],
    ) -> None:
        self._watched, self._namespaces, self._configuration, self._saw = watched, namespaces, configuration, saw
        self._pages, self._on_listed = listed, on_listed
        self._watches = {
            path(each.api_version, each.kind, namespace): _Watch(each, namespace)
            for each in watched
            for namespace in namespaces or [""]
        }
        self._prefix = URL(configuration.host).path.rstrip("/")
        self.coverage = Coverage({where: watch.namespace for where, watch in self._watches.items()})
        self._was_listed = False
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._done: Future[None] = Future()

    @property
    def ready(self) -> bool:
        """Whether each watch has been established, but for those of namespaces that are away."""
        return self.coverage.all_established and not self._done.done()

    def start(self) -> None:
        """Start to watch."""
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    def stop(self) -> None:
        """Begin to stop."""
        self._stop.set()

    async def wait(self) -> None:
        """Wait until the watches have ended.

        Raises:
            Exception: what ended them, unless it was `stop`.
        """
        # Shielded: cancelling the wait must not cancel the future that the thread sets.
        await asyncio.shield(asyncio.wrap_future(self._done))

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    async def _operate(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=self._settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=list(self._namespaces),
            stop_flag=self._stop,
        )

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.peering.standalone = True
        settings.scanning.disabled = True  # No need to list namespaces and CRDs: what we watch is known.
        settings.process.ultimate_exiting_timeout = None
        settings.networking.request_timeout = MAX_ATTEMPT_SECONDS
        settings.networking.error_backoffs = Endless()
        settings.queueing.exit_timeout = 0.5
        settings.queueing.idle_timeout = 1.0  # Each object that changed has a task until then.
        settings.watching.chunk_size = PAGE_SIZE
        settings.persistence.diffbase_storage = NoDifferences()
        for watched in self._watched:
            if watched.selector:
                settings.watching.label_selectors[watched.api_version, watched.plural] = watched.selector
        return settings

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY, backoff=1.0)(self._login)
        for watched in self._watched:
            handler = self._handler(watched)
            kopf.on.event(watched.api_version, watched.plural, registry=registry, id=watched.plural)(handler)
        return registry

    def _handler(self, watched: Watched) -> Callable[..., Any]:
        async def handle(event: kopf.RawEvent, **_: Any) -> None:
            self._post(self._saw, event["type"], _typed(watched, event["object"]))

        return handle

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """A session with the client's own credentials; kopf requests a new one when a token was refused."""
        configuration = self._configuration
        headers = {"User-Agent": USER_AGENT}
        if token := await configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._on_request)
        trace.on_request_end.append(self._on_answer)
        watch_of, take_page = self._watch, self._take_page
        one_page = asyncio.Lock()

        class Response(aiohttp.ClientResponse):
            async def json(self, **options: Any) -> Any:
                watch = watch_of(self.url)
                if watch is None:
                    return await super().json(**options)
                # The kinds are listed at the same time; of their pages, one is in memory until it was taken in.
                async with one_page:
                    page = read_page(await self.text("utf-8"), functools.partial(_typed, watch.watched))
                    return await take_page(self.url, watch, page)

        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=RESTClientObject(configuration).ssl_context),
            response_class=Response,
            headers=headers,
            trace_configs=[trace],
            trust_env=True,
        )
        return kopf.AiohttpSession(server=configuration.host, default_namespace=None, aiohttp_session=session)

    def _watch(self, url: URL) -> _Watch | None:
        """What the URL lists or watches."""
        return self._watches.get(url.path.removeprefix(self._prefix))

    async def _on_request(
        self, _session: Any, _context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        watch = self._watch(params.url)
        if watch and watch.watched.metadata_only:
            what = "PartialObjectMetadata" if "watch" in params.url.query else "PartialObjectMetadataList"
            params.headers["Accept"] = METADATA.format(what)

    async def _take_page(self, url: URL, watch: _Watch, answer: Any) -> Any:
        """Pass a page of a listing on, and return what kopf shall see of it: where to continue."""
        if not isinstance(answer, dict) or "items" not in answer:
            return answer
        metadata = answer.get("metadata") or {}
        page = Page(
            watch.watched.api_version,
            watch.watched.kind,
            watch.namespace,
            answer["items"] or [],
            str(metadata.get("resourceVersion", "")),
            first="continue" not in url.query,
            last=not metadata.get("continue"),
        )
        if not self._loop.is_closed():
            listed = self._listed(url.path.removeprefix(self._prefix), page)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(listed, self._loop))
        return {**answer, "items": []}

    async def _listed(self, where: str, page: Page) -> None:
        self._pages(page)
        if page.last:
            self.coverage.listed(where)
            self._check_listed()

    async def _on_answer(self, _session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        where, is_watch = params.url.path.removeprefix(self._prefix), "watch" in params.url.query
        self._post(self._answered, where, params.response.status, is_watch)

    def _answered(self, where: str, status: int, is_watch: bool) -> None:
        self.coverage.answered(where, status, is_watch)
        self._check_listed()

    def _check_listed(self) -> None:
        """Say once that all is listed; what keeps it from that may also end by a namespace being away."""
        if not self._was_listed and self.coverage.all_listed:
            self._was_listed = True
            self._on_listed()

    def _post(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call something in the loop that started us; once that is closed, nobody cares."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)


def _typed(watched: Watched, obj: Mapping[str, Any]) -> Object:
    """The object, trimmed. Items of listings lack apiVersion and kind, and mere metadata has others."""
    return trimmed({**obj, "apiVersion": watched.api_version, "kind": watched.kind})
