"""Assembles the operator: watches, controllers and their client, with all state of the process."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from hone.core.kind import AnyKind
from hone.core.kinds import WATCHED, WATCHED_CHILDREN, is_watched
from hone.core.observed import Object
from hone.core.trim import trimmed
from hone.runtime import revisions
from hone.runtime.client import Client, Hook
from hone.runtime.controller import Controller, Key
from hone.runtime.errors import Transient
from hone.runtime.events import EventRecorder
from hone.runtime.evidence import EvidenceCache
from hone.runtime.handlers import Watcher
from hone.runtime.index import Index
from hone.runtime.listings import Listings
from hone.runtime.metrics import Metrics
from hone.runtime.nodes import Nodes
from hone.runtime.observe import Observer
from hone.runtime.options import Options
from hone.runtime.progress import ProgressReader
from hone.runtime.readings import Readings
from hone.runtime.triggers import Triggers

KINDS_SECONDS = 1.0
log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The present time."""
    return datetime.now(UTC)


class Operator:
    """Watches and reconciles until it is stopped. Build and use it in one running loop.

    Args:
        kinds: the kinds to reconcile, by name.
        configuration: how to reach the API server.
        options: the process's options.
        hook: called around every API call, for tests.
        now: the present time.

    Attributes:
        client: the client of all API calls.
        metrics: its metrics.
    """

    def __init__(
        self,
        kinds: Mapping[str, AnyKind],
        configuration: Configuration,
        options: Options,
        hook: Hook | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._kinds, self._options = kinds, options
        self.metrics = Metrics()
        self._index = Index()
        self.client = Client(
            ApiClient(configuration), self.metrics, hook, wrote=self._wrote, deleted=self._index.remove
        )
        self._progress = ProgressReader()
        evidence = EvidenceCache()
        self._readings = Readings(self._progress.read, options.settings.progress_seconds)
        observer = Observer(self.client, self._index, evidence, self._readings, Nodes(self.client), self._wake)
        recorder = EventRecorder(self.client, self.metrics, now, options.pod_name)
        self._controllers = {
            name: Controller(
                kind,
                self.client,
                observer,
                recorder,
                options.settings,
                self.metrics,
                now,
                options.workers,
                options.refused_seconds,
            )
            for name, kind in kinds.items()
        }
        silent = frozenset(child.kind for child in WATCHED_CHILDREN if not child.triggers)
        triggers = Triggers(kinds, self._add, self._index, evidence, silent)
        listings = Listings(self._index, triggers)
        self._watcher = Watcher(
            WATCHED, options.watch_namespaces, configuration, triggers.saw, listings.page, self._start_queues
        )

    @property
    def ready(self) -> bool:
        """Whether every watch has been established, but for those of namespaces that are away."""
        return self._watcher.ready

    async def wait_for_kinds(self) -> None:
        """Wait until the API server knows our kinds: a chart's CRDs may be created shortly after the operator."""
        for kind in self._kinds.values():
            while True:
                try:
                    if kind.name in await self.client.kinds(kind.api_version):
                        break
                    log.info("waiting for the CustomResourceDefinition of %s", kind.name)
                except Transient as error:
                    log.warning("waiting for the API server: %s", error)
                await asyncio.sleep(KINDS_SECONDS)

    def start(self) -> None:
        """Start to watch, then to reconcile once all is listed. Call `wait_for_kinds` before."""
        self._watcher.start()

    async def wait(self) -> None:
        """Wait for the watches to end by themselves, or to be worth nothing any more.

        Raises:
            Exception: what ended them.
            WentBack: the API server's revisions went back, so a new process has to list everything again.
        """
        coverage, seconds = self._watcher.coverage, self._options.revision_seconds
        tasks = [
            asyncio.create_task(self._watcher.wait()),
            asyncio.create_task(revisions.watch(self.client, lambda: coverage.namespaces, seconds)),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()

    async def stop(self, at_once: bool = False) -> None:
        """Accept no new keys, let running reconciles finish, and close all connections.

        Args:
            at_once: interrupt running reconciles.
        """
        seconds = 0.0 if at_once else self._options.drain_seconds
        self._watcher.stop()
        queues = [controller.queue for controller in self._controllers.values()]
        drained = await asyncio.gather(*(queue.stop(seconds) for queue in queues))
        if not all(drained):
            log.warning("some reconciles were interrupted; the next operator process repeats them")
        await self._readings.close()
        await self._progress.close()
        await self.client.close()

    def _start_queues(self) -> None:
        for controller in self._controllers.values():
            controller.queue.start()

    def _wrote(self, obj: Object) -> None:
        """Take in the answer to a write of ours, so that the next reconcile reads it."""
        if is_watched(obj):
            self._index.put(trimmed(obj))

    def _wake(self, kind: str, namespace: str, name: str) -> None:
        self._add(kind, Key(namespace, name), listed=False)

    def _add(self, kind: str, key: Key, listed: bool) -> None:
        self._controllers[kind].queue.add(key, listed)
