"""One controller per kind: takes a key from the queue, observes, reconciles, executes, and requeues it."""

import logging
import math
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from hone.core.kind import AnyKind
from hone.core.observed import Object, Ref
from hone.core.settings import Settings
from hone.runtime.client import Client
from hone.runtime.errors import ApiError, Conflict
from hone.runtime.events import EventRecorder
from hone.runtime.execute import WriteRefused, execute
from hone.runtime.metrics import Metrics
from hone.runtime.observe import Observer
from hone.runtime.queue import WorkQueue

REFUSED_SECONDS = 60.0
"""Seconds until a refused write is retried."""
SLOW_TRANSIENT_FAILURES = 5
"""Consecutive failures after which a transient error is logged as a warning."""
NAMESPACES = 4
"""A namespace has at least one worker in so many, however many others have work."""
log = logging.getLogger(__name__)


class Key(NamedTuple):
    """The resource that a worker works on."""

    namespace: str
    name: str


class Controller:
    """Brings the resources of one kind to the state that their specs describe.

    Args:
        kind: the kind.
        client: the client.
        observer: reads what a reconcile needs.
        recorder: writes the Events.
        settings: the operator's settings.
        metrics: where its metrics go.
        now: the present time, with its zone.
        workers: maximum number of resources that are reconciled at a time.
        refused_seconds: seconds until a refused write is retried.
        clock: seconds since some moment.

    Attributes:
        queue: add a Key to have its resource reconciled.
    """

    def __init__(
        self,
        kind: AnyKind,
        client: Client,
        observer: Observer,
        recorder: EventRecorder,
        settings: Settings,
        metrics: Metrics,
        now: Callable[[], datetime],
        workers: int = 8,
        refused_seconds: float = REFUSED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind, self._client, self._observer, self._recorder = kind, client, observer, recorder
        self._settings, self._metrics, self._now = settings, metrics, now
        self._refused_seconds = refused_seconds
        self._name = kind.name.lower()
        self._uids: dict[Key, str] = {}
        self._clock = clock
        self._fresh_at: dict[Key, float] = {}  # when everything is to be read from the API server again
        self.queue: WorkQueue[Key] = WorkQueue(
            self._name,
            self._process,
            metrics,
            workers,
            group=lambda key: key.namespace,
            share=math.ceil(workers / NAMESPACES),
        )
        metrics.controller(self._name, workers)

    async def _process(self, key: Key) -> None:
        metrics, name = self._metrics, self._name
        metrics.active.labels(name).inc()
        with metrics.seconds.labels(name).time():
            try:
                result = await self._attempt(key)
            finally:
                metrics.active.labels(name).dec()
        metrics.reconciles.labels(name, result).inc()

    async def _attempt(self, key: Key) -> str:
        """Reconcile, and requeue the key. Returns controller-runtime's name of the result."""
        where = {"controller": self._name, "namespace": key.namespace, "resource": key.name}
        try:
            after = await self._reconcile(key, fresh=self._clock() >= self._fresh_at.get(key, math.inf))
        except Conflict as error:
            log.debug("changed in the meantime, reconciling again: %s", error, extra=where)
            self._fresh_at[key] = -math.inf
            self.queue.add_rate_limited(key)
            return "requeue"
        except ApiError as error:
            self._fresh_at[key] = -math.inf  # A write that got no answer may have taken effect.
            delay = self.queue.add_rate_limited(key, at_least=error.retry_after or 0.0)
            level = logging.WARNING if self.queue.failures(key) >= SLOW_TRANSIENT_FAILURES else logging.INFO
            log.log(level, "retrying in %.1f s: %s", delay, error, extra=where)
            self._metrics.errors.labels(self._name).inc()
            return "error"
        except Exception:
            self._metrics.panics.labels(self._name).inc()
            self._metrics.errors.labels(self._name).inc()
            delay = self.queue.add_rate_limited(key)
            log.exception("bug: the reconcile raised an exception; retrying in %.1f s", delay, extra=where)
            return "error"
        self.queue.forget(key)
        if after is None:
            return "success"
        self.queue.add_after(key, after)
        return "requeue_after"

    async def _reconcile(self, key: Key, fresh: bool) -> float | None:
        """Reconcile a resource. Returns the seconds until the next reconcile, or None if only an event triggers one.

        Args:
            key: the resource.
            fresh: whether to read everything from the API server: a write failed, or the last such time is long ago.
        """
        kind = self._kind
        resource = await self._observer.resource(key.namespace, Ref(kind.api_version, kind.name, key.name), fresh)
        uid = resource["metadata"]["uid"] if resource else None
        if (known := self._uids.get(key)) and known != uid:
            self._observer.forget(key.namespace, known)
        if resource is None or uid is None:
            self._uids.pop(key, None)
            self._fresh_at.pop(key, None)
            self._metrics.resources.forget(kind.name, *key)
            return None
        self._uids[key] = uid
        self._metrics.resources.observe(kind.name, *key, resource)
        if "deletionTimestamp" in resource["metadata"]:
            self._observer.stop_reading(uid)
            return None  # Garbage collection does the rest; a child created now would delay it.
        if kind.idle(resource):
            self._fresh_at.pop(key, None)
            self._observer.stop_reading(uid)
            return None  # Only an event changes that. Of 10,000 finished jobs, the timers would be most of the queue.
        subject = kind.subject(resource, self._settings)
        observed = await self._observer.observe(kind, subject, fresh)
        plan = kind.reconcile(subject, observed, self._now())
        if not fresh and kind.is_drastic(subject, observed, plan):
            return await self._reconcile(key, fresh=True)
        if fresh or key not in self._fresh_at:
            self._fresh_at[key] = self._clock() + self._settings.resync_seconds
        try:
            after = await execute(self._client, self._recorder, resource, plan)
        except WriteRefused as refusal:
            log.warning(
                "the API server refused %s", refusal, extra={"controller": self._name, "namespace": key.namespace}
            )
            plan = kind.refused(resource, plan, refusal.what, refusal.error.message, self._now())
            await execute(self._client, self._recorder, resource, plan)
            return self._refused_seconds * random.uniform(1.0, 1.1)
        self._metrics.resources.observe(kind.name, *key, after)
        self._log_phase(resource, after)
        return self._resync() if plan.requeue_after is None else min(plan.requeue_after, self._resync())

    def _resync(self) -> float:
        return self._settings.resync_seconds * random.uniform(0.9, 1.1)

    def _log_phase(self, before: Object, after: Object) -> None:
        old, new = ((obj.get("status") or {}).get("phase") for obj in (before, after))
        if old != new:
            metadata = after["metadata"]
            extra = {"controller": self._name, "namespace": metadata["namespace"], "resource": metadata["name"]}
            log.info("phase %s, was %s", new, old, extra=extra)
