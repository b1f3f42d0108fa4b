"""Which other jobs need what they share with a run on a volume: prepare may make room by removing the rest.

The list is part of the attempt, since the RunConfig never changes. A job that is created later is in no list; its marks
on the volume are newer than the list, and protect what it reads.
"""

from datetime import datetime

from hone.api.finetunejob_status import AttemptResult
from hone.contract.runconfig import SharedVolume
from hone.core.finetunejob.run import PREPARE, WORKSPACE_DIRECTORY, Run
from hone.core.finetunejob.steps import next_step
from hone.core.observed import Object, Observed
from hone.core.quantity import as_int

MAX_RUNS = 1000
"""Most jobs in a list: an environment variable may have 128 KiB. With more, nothing is removed."""


def reads_peers(run: Run) -> bool:
    """Whether the other jobs of the namespace have to be listed: the run shares its workspace, and prepares next.

    Not while an attempt runs: one that follows in the reconcile in which that ends makes no room.
    """
    if run.fault or run.spec.suspend or run.workspace.claim_name is None:
        return False
    status = run.old_status
    if any(attempt.result == AttemptResult.RUNNING for attempt in status.attempts):
        return False
    step = next_step(run, status)
    return step is not None and step.name == PREPARE


def shared_volumes(run: Run, observed: Observed, now: datetime) -> list[SharedVolume]:
    """The volumes that a run shares with other jobs, where these were listed."""
    if observed.peers is None or run.workspace.claim_name is None:
        return []
    others = [peer for peer in observed.peers if peer["metadata"]["uid"] != run.uid and not _has_ended(peer)]
    users = [peer for peer in others if _workspace_claim(peer) == run.workspace.claim_name]
    if len(users) > MAX_RUNS:
        return []
    limit = run.workspace.size_limit
    return [
        SharedVolume(
            path=WORKSPACE_DIRECTORY,
            limit_bytes=as_int(limit) if limit is not None else None,
            runs=sorted(peer["metadata"]["uid"] for peer in users if not _has_plan(peer)),
            planned=sorted(peer["metadata"]["uid"] for peer in users if _has_plan(peer)),
            as_of=now.timestamp(),
        )
    ]


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


def _workspace_claim(job: Object) -> str | None:
    claim: str | None = (job["spec"].get("workspace") or {}).get("claimName")
    return claim
