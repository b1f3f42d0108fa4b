"""Which other jobs need what they share with a run on a volume: prepare may make room by removing the rest.

The list is part of the attempt, since the RunConfig never changes. A job that is created later is in no list; its marks
on the volume are newer than the list, and protect what it reads.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from hone.api.finetunejob_status import AttemptResult
from hone.contract.runconfig import CACHE, SharedVolume
from hone.core.finetunejob.run import PREPARE, WORKSPACE_DIRECTORY, Run
from hone.core.finetunejob.sources import downloads
from hone.core.finetunejob.steps import next_step
from hone.core.observed import Object, Observed, Ref
from hone.core.ownership import belongs_to, claim_ref
from hone.core.quantity import as_int

MAX_RUNS = 1000
"""Most jobs in a list: an environment variable may have 128 KiB. With more, nothing is removed."""


def reads_peers(run: Run) -> bool:
    """Whether the other jobs of the namespace have to be listed: the run shares a volume, and prepares next.

    Not while an attempt runs: one that follows in the reconcile in which that ends makes no room.
    """
    if run.fault or run.spec.suspend or not _shared_claims(run):
        return False
    status = run.old_status
    if any(attempt.result == AttemptResult.RUNNING for attempt in status.attempts):
        return False
    step = next_step(run, status)
    return step is not None and step.name == PREPARE


def cache_refs(run: Run) -> set[Ref]:
    """The administrator's claim for downloads, while it is not recorded whether the namespace has one."""
    if run.fault or run.spec.cache or not run.settings.cache_claim or not downloads(run):
        return set()
    return set() if (run.resource.get("status") or {}).get("runConfig") else {claim_ref(run.settings.cache_claim)}


def cache_of_namespace(run: Run, observed: Observed) -> str | None:
    """The administrator's claim for downloads, if the namespace has one that no resource of ours owns."""
    claims = {ref.name: observed.get(ref) for ref in cache_refs(run)}
    return next((name for name, claim in claims.items() if claim and not belongs_to(claim)), None)


def shared_volumes(run: Run, observed: Observed, now: datetime) -> list[SharedVolume]:
    """The volumes that a run shares with other jobs, where these were listed."""
    if observed.peers is None:
        return []
    others = [peer for peer in observed.peers if peer["metadata"]["uid"] != run.uid and not _has_ended(peer)]
    if len(others) > MAX_RUNS:
        return []
    return [_volume(place, others, now) for place in _shared_claims(run)]


class _Place(NamedTuple):
    """A claim that a run shares.

    Attributes:
        path: where it is mounted.
        claim: its name.
        limit: quantity of what is kept on it; empty: what it holds.
    """

    path: str
    claim: str
    limit: str


def _shared_claims(run: Run) -> list[_Place]:
    places = []
    if claim := run.workspace.claim_name:
        places.append(_Place(WORKSPACE_DIRECTORY, claim, str(run.workspace.size_limit or "")))
    if (claim := run.cache_claim) and downloads(run):
        limit = run.spec.cache.size_limit if run.spec.cache else run.settings.cache_size_limit
        places.append(_Place(CACHE, claim, str(limit or "")))
    return places


def _volume(place: _Place, others: Sequence[Object], now: datetime) -> SharedVolume:
    users = [peer for peer in others if place.claim in _claims(peer)]
    return SharedVolume(
        path=place.path,
        limit_bytes=as_int(place.limit) if place.limit else None,
        runs=sorted(peer["metadata"]["uid"] for peer in users if not _has_plan(peer)),
        planned=sorted(peer["metadata"]["uid"] for peer in users if _has_plan(peer)),
        as_of=now.timestamp(),
    )


def _has_ended(job: Object) -> bool:
    """Whether a job has ended and nothing of it runs again: neither an edit nor a deletion is in progress."""
    meta, status = job["metadata"], job.get("status") or {}
    is_finished = any(
        condition.get("type") == "Finished" and condition.get("status") == "True"
        for condition in status.get("conditions") or []
    )
    return is_finished and status.get("observedGeneration") == meta.get("generation")


def _has_plan(job: Object) -> bool:
    return bool((job.get("status") or {}).get("plan"))


def _claims(job: Object) -> set[str | None]:
    """The claims on which a job may read what jobs share."""
    spec, status = job["spec"], job.get("status") or {}
    names = [(spec.get(field) or {}).get("claimName") for field in ("workspace", "cache")]
    return {*names, status.get("cacheClaim")}
