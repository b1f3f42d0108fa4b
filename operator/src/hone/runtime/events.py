"""Writes Kubernetes Events: one object per resource, reason and message; a repetition increases its count."""

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime

from hone.core.observed import Object, Ref
from hone.core.plan import Event
from hone.runtime.client import Client
from hone.runtime.errors import ApiError, Conflict
from hone.runtime.metrics import Metrics

API_VERSION = "events.k8s.io/v1"
CONTROLLER = "hone.dev/operator"
MAX_NOTE_BYTES = 1024
MAX_REASON = 128
log = logging.getLogger(__name__)


class EventRecorder:
    """Writes Events on resources. Events are not retried: one that cannot be written is logged and counted.

    Args:
        client: the client.
        metrics: counts the failures.
        now: the present time.
        instance: name of this operator's pod.
    """

    def __init__(self, client: Client, metrics: Metrics, now: Callable[[], datetime], instance: str) -> None:
        self._client, self._metrics, self._now, self._instance = client, metrics, now, instance

    async def record(self, resource: Object, event: Event) -> None:
        """Create the Event, or increase its count if it exists."""
        namespace = resource["metadata"]["namespace"]
        body = self._body(resource, event)
        try:
            try:
                await self._client.create(namespace, body)
            except Conflict:
                await self._count(namespace, body)
        except ApiError as error:
            self._metrics.event_failures.inc()
            log.warning("cannot write the event %s: %s", event.reason, error)

    async def _count(self, namespace: str, body: Object) -> None:
        ref = Ref(API_VERSION, "Event", body["metadata"]["name"])
        existing = await self._client.get(namespace, ref)
        if existing:
            count = (existing.get("series") or {}).get("count", 1) + 1
            series = {"count": count, "lastObservedTime": body["eventTime"]}
            await self._client.patch(namespace, ref, {"series": series})

    def _body(self, resource: Object, event: Event) -> Object:
        metadata = resource["metadata"]
        identity = "\0".join((metadata["uid"], event.type, event.reason, event.message))
        # The name follows from the identity, so that any operator process finds the same Event.
        name = f"{metadata['name'][:200].rstrip('.-')}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        note = event.message.encode()[:MAX_NOTE_BYTES].decode(errors="ignore")
        return {
            "apiVersion": API_VERSION,
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": event.reason[:MAX_REASON],
            "reason": event.reason[:MAX_REASON],
            "type": str(event.type),
            "note": note,
            "regarding": {
                "apiVersion": resource["apiVersion"],
                "kind": resource["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
        }
