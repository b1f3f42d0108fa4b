"""Our owner reference on an artifact's claim: taken before the artifact is read, given back when it no longer is.

The claim belongs to its job. As a second, non-controller owner, a ModelDeployment that serves the artifact or another
job that reads it keeps garbage collection from taking it after its own job is deleted. To give up, we put that job's
reference in the place of ours: if the job is gone, no owner is left that exists, and garbage collection takes the
claim; without any reference it would stay for ever.
"""

from typing import Any

from hone.api import API_VERSION
from hone.api.finetunejob import KIND as JOB_KIND
from hone.core.children import owner_reference
from hone.core.names import RETAIN_ANNOTATION, UID_LABEL, owner_of
from hone.core.observed import Object, Ref
from hone.core.plan import Apply
from hone.core.subject import Subject


def claim_ref(claim: str) -> Ref:
    """The claim, to be read."""
    return Ref("v1", "PersistentVolumeClaim", claim)


def is_usable(claim: Object | None) -> bool:
    """Whether the claim exists and is not about to go."""
    return claim is not None and "deletionTimestamp" not in claim["metadata"]


def take(reader: Subject, claim: Object) -> Apply | None:
    """What makes us an owner; None where we are, or where the claim is retained and shall have no owner."""
    if _is_retained(claim) or reader.uid in {owner["uid"] for owner in _owners(claim)}:
        return None
    return _apply(reader, claim, [owner_reference(reader.resource, controller=False)])


def give_back(reader: Subject, claim: Object | None) -> Apply | None:
    """What ends our ownership; None where we are no owner."""
    if claim is None or reader.uid not in {owner["uid"] for owner in _owners(claim)}:
        return None
    job_uid = (claim["metadata"].get("labels") or {}).get(UID_LABEL)
    owner = owner_of(claim)
    if job_uid is None or owner is None:
        return _apply(reader, claim, [])
    # A reference is atomic to server-side apply: where the job's is still there, it is applied just as it stands.
    job = {"apiVersion": API_VERSION, "kind": JOB_KIND, "name": owner[1], "uid": job_uid}
    return _apply(reader, claim, [next((each for each in _owners(claim) if each["uid"] == job_uid), job)])


def _apply(reader: Subject, claim: Object, owners: list[dict[str, Any]]) -> Apply:
    meta = claim["metadata"]
    body: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        # With the uid, a claim that has gone meanwhile is not made again.
        "metadata": {"name": meta["name"], "namespace": reader.namespace, "uid": meta["uid"]},
    }
    if owners:
        body["metadata"]["ownerReferences"] = owners
    return Apply(body, reader.field_manager)


def _owners(claim: Object) -> list[dict[str, Any]]:
    return list(claim["metadata"].get("ownerReferences") or [])


def _is_retained(claim: Object) -> bool:
    return (claim["metadata"].get("annotations") or {}).get(RETAIN_ANNOTATION) == "true"
