"""kopf, used only as a source of watch events: no finalizers, no annotations, no state of its own.

It runs in a thread with its own event loop, because it cancels every task of its loop when it stops.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import aiohttp
import kopf
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from hone.core.observed import Object
from hone.runtime.client import USER_AGENT

MAX_ATTEMPT_SECONDS = 30.0
log = logging.getLogger(__name__)


class Watched(NamedTuple):
    """A kind to watch.

    Attributes:
        api_version: such as `batch/v1`.
        kind: such as `Job`.
        plural: such as `jobs`.
        selector: label selector that the server filters with; empty for all objects.
    """

    api_version: str
    kind: str
    plural: str
    selector: str = ""


class Watcher:
    """Watches the cluster, and passes every event to `saw` in the loop that started it.

    Args:
        watched: the kinds to watch.
        namespaces: the namespaces to watch; none: all.
        configuration: how to reach the API server; read again when a token was refused.
        saw: called with the type (None while listing) and the object of each event.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        namespaces: Sequence[str],
        configuration: Configuration,
        saw: Callable[[str | None, Object], None],
    ) -> None:
        self._watched, self._namespaces, self._configuration, self._saw = watched, namespaces, configuration, saw
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._established: set[str] = set()
        self._expected = len(watched) * max(1, len(namespaces))
        self._done: Future[None] = Future()

    @property
    def ready(self) -> bool:
        """Whether each watch has been established."""
        return len(self._established) >= self._expected and not self._done.done()

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
        settings.queueing.exit_timeout = 0.5
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
            # Items of a listing come without apiVersion and kind.
            body = {**event["object"], "apiVersion": watched.api_version, "kind": watched.kind}
            self._loop.call_soon_threadsafe(self._saw, event["type"], body)

        return handle

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """A session with the client's own credentials; kopf requests a new one when a token was refused."""
        configuration = self._configuration
        headers = {"User-Agent": USER_AGENT}
        if token := await configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._on_answer)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=RESTClientObject(configuration).ssl_context),
            headers=headers,
            trace_configs=[trace],
            trust_env=True,
        )
        return kopf.AiohttpSession(server=configuration.host, default_namespace=None, aiohttp_session=session)

    async def _on_answer(self, _session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        if "watch" in params.url.query and params.response.status == 200:
            self._loop.call_soon_threadsafe(self._established.add, params.url.path)
