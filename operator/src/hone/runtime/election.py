"""Leader election by a Lease: of all operators that name the same one, one reconciles, and the others wait for it.

As in client-go, clocks of different machines are never compared: a Lease is expired once its holder has not renewed it
for as long as it says, seen by the clock of the one that waits.
"""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from hone.core.observed import Object, Ref
from hone.runtime.client import Client
from hone.runtime.errors import ApiError, Conflict
from hone.runtime.metrics import Metrics

API_VERSION = "coordination.k8s.io/v1"
log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another operator may reconcile: this one must not write any more."""


@dataclass(frozen=True)
class Lease:
    """Which Lease is held, and how.

    Attributes:
        namespace: where it is.
        name: its name.
        seconds: how long it is valid after each renewal.
    """

    namespace: str
    name: str
    seconds: int

    @property
    def deadline(self) -> float:
        """Seconds without a renewal after which its holder gives up, which is before others take over."""
        return self.seconds * 2 / 3

    @property
    def pause(self) -> float:
        """Seconds between two tries to renew or to acquire it."""
        return self.seconds * 2 / 15


class Election:
    """One candidate. Run `hold`; `leads` is set while the Lease is ours.

    Args:
        client: the client; one that reconciles do not keep busy.
        lease: the Lease.
        pod: the name of the candidate's pod. A process that is started again in it is another candidate.
        metrics: shows whether it leads.

    Attributes:
        identity: what the Lease names.
        leads: set from the time when the Lease is ours.
        waits: whether the Lease is known to be another's.
    """

    def __init__(self, client: Client, lease: Lease, pod: str, metrics: Metrics) -> None:
        self._client, self._lease, self._metrics = client, lease, metrics
        self._clock = asyncio.get_running_loop().time
        self._ref = Ref(API_VERSION, "Lease", lease.name)
        self._seen: Object | None = None
        self._seen_at = 0.0
        self.identity = f"{pod}_{uuid.uuid4()}"
        self.leads = asyncio.Event()
        self.waits = False
        metrics.leads(lease.name, False)

    async def hold(self) -> None:
        """Acquire the Lease, and renew it for good.

        Raises:
            LeaseLost: it is another's, or could not be renewed in time.
        """
        last, problem = self._clock(), ""
        while True:
            began = self._clock()
            left = last + self._lease.deadline - began if self.leads.is_set() else self._lease.deadline
            try:
                async with asyncio.timeout(min(left, self._lease.deadline / 2)):
                    is_ours, problem = await self._try(), ""
            except (ApiError, TimeoutError) as error:
                problem, is_ours = self._message(problem, error), None
            if is_ours:
                last = began
                self._lead()
            elif self.leads.is_set():
                if is_ours is False:
                    raise LeaseLost(f"{self._holder()} holds the Lease {self._lease.name}")
                if self._clock() - last >= self._lease.deadline:
                    raise LeaseLost(f"the Lease {self._lease.name} could not be renewed: {problem}")
            elif is_ours is False and not self.waits:
                self.waits = True
                log.info("waiting: %s holds the Lease %s", self._holder(), self._lease.name)
            await asyncio.sleep(self._lease.pause)

    async def close(self) -> None:
        """Give the Lease back, so that another need not wait until it expires, and close the connection."""
        try:
            if self.leads.is_set():
                async with asyncio.timeout(self._lease.deadline / 2):
                    live = await self._client.get(self._lease.namespace, self._ref)
                    if live and (live.get("spec") or {}).get("holderIdentity") == self.identity:
                        await self._write(live, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except (ApiError, TimeoutError) as error:
            log.info("the Lease was not given back, and expires: %s", error)
        finally:
            await self._client.close()

    async def _try(self) -> bool | None:
        """Acquire or renew the Lease. Returns whether it is ours, or None if somebody else has just written it."""
        live = await self._client.get(self._lease.namespace, self._ref)
        try:
            if live is None:
                body: Object = {"apiVersion": API_VERSION, "kind": "Lease", "metadata": {"name": self._lease.name}}
                await self._client.create(self._lease.namespace, {**body, "spec": self._spec({})})
                return True
            spec = live.get("spec") or {}
            if spec != self._seen:
                self._seen, self._seen_at = spec, self._clock()
            holder = spec.get("holderIdentity") or ""
            if holder != self.identity and (self.leads.is_set() or (holder and not self._is_expired(spec))):
                return False
            await self._write(live, self._spec(spec))
        except Conflict:
            return None
        return True

    def _is_expired(self, spec: Object) -> bool:
        return self._clock() >= self._seen_at + float(spec.get("leaseDurationSeconds") or 0)

    def _spec(self, old: Object) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        new = {"holderIdentity": self.identity, "leaseDurationSeconds": self._lease.seconds, "renewTime": now}
        if old.get("holderIdentity") == self.identity:
            return new
        return {**new, "acquireTime": now, "leaseTransitions": int(old.get("leaseTransitions") or 0) + bool(old)}

    async def _write(self, live: Object, spec: Object) -> None:
        """Change the Lease, unless somebody has since it was read."""
        metadata = {"resourceVersion": live["metadata"]["resourceVersion"]}
        await self._client.patch(self._lease.namespace, self._ref, {"metadata": metadata, "spec": spec})

    def _lead(self) -> None:
        if not self.leads.is_set():
            log.info("leading by the Lease %s", self._lease.name)
            self._metrics.leads(self._lease.name, True)
            self.waits = False
            self.leads.set()

    def _holder(self) -> str:
        return str((self._seen or {}).get("holderIdentity") or "nobody")

    def _message(self, before: str, error: Exception) -> str:
        """The error in words, logged when it changes."""
        text = str(error) or before or "no answer in time"
        if text != before:
            log.warning("the Lease %s/%s: %s", self._lease.namespace, self._lease.name, text)
        return text
