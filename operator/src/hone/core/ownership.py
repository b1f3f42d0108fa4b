"""Our owner reference on an artifact's claim: added before the artifact is read, removed when it is no longer read.

The claim belongs to its job. A ModelDeployment that serves the artifact, or another job that reads it, becomes a second
owner (not the controller), so that garbage collection keeps the claim after its job is deleted. To give it back, we
replace our reference by that of the job: if the job is gone, no owner exists any longer, and garbage collection deletes
the claim; without any reference it would never be deleted.
"""

from typing import Any

from hone.api import API_VERSION, GROUP
from hone.api.finetunejob import KIND as JOB_KIND
from hone.core.children import owner_reference
from hone.core.names import RETAIN_ANNOTATION, UID_LABEL, owner_of
from hone.core.observed import Object, Ref
from hone.core.plan import Apply
from hone.core.subject import Subject


def claim_ref(claim: str) -> Ref:
    """The Ref of a claim."""
    return Ref("v1", "PersistentVolumeClaim", claim)


def is_usable(claim: Object | None) -> bool:
    """Whether the claim exists and is not being deleted."""
    return claim is not None and "deletionTimestamp" not in claim["metadata"]


def belongs_to(claim: Object) -> str | None:
    """The resource of ours that the claim was created for, or that owns it; None if the claim is a user's.

    Whoever may only create our resources can change neither labels nor owners of a claim.
    """
    meta = claim["metadata"]
    owner = owner_of(claim) or next(
        ((each["kind"], each["name"]) for each in _owners(claim) if each["apiVersion"].startswith(f"{GROUP}/")), None
    )
    if owner:
        return f"{owner[0]} {owner[1]!r}"
    return "a FineTuneJob" if (meta.get("labels") or {}).get(UID_LABEL) or _is_retained(claim) else None


def take(reader: Subject, claim: Object) -> Apply | None:
    """The apply that makes us an owner; None if we are one already, or the claim is retained and has no owners."""
    if _is_retained(claim) or reader.uid in {owner["uid"] for owner in _owners(claim)}:
        return None
    return _apply(reader, claim, [owner_reference(reader.resource, controller=False)])


def give_back(reader: Subject, claim: Object | None) -> Apply | None:
    """The apply that ends our ownership; None if we are no owner."""
    if claim is None or reader.uid not in {owner["uid"] for owner in _owners(claim)}:
        return None
    job_uid = (claim["metadata"].get("labels") or {}).get(UID_LABEL)
    owner = owner_of(claim)
    if job_uid is None or owner is None:
        return _apply(reader, claim, [])
    # Server-side apply treats a reference as atomic: if the job's still exists, it is applied unchanged.
    job = {"apiVersion": API_VERSION, "kind": JOB_KIND, "name": owner[1], "uid": job_uid}
    return _apply(reader, claim, [next((each for each in _owners(claim) if each["uid"] == job_uid), job)])


def _apply(reader: Subject, claim: Object, owners: list[dict[str, Any]]) -> Apply:
    meta = claim["metadata"]
    body: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        # With the uid, a claim that was deleted in the meantime is not created again.
        "metadata": {"name": meta["name"], "namespace": reader.namespace, "uid": meta["uid"]},
    }
    if owners:
        body["metadata"]["ownerReferences"] = owners
    return Apply(body, reader.field_manager)


def _owners(claim: Object) -> list[dict[str, Any]]:
    return list(claim["metadata"].get("ownerReferences") or [])


def _is_retained(claim: Object) -> bool:
    return (claim["metadata"].get("annotations") or {}).get(RETAIN_ANNOTATION) == "true"
