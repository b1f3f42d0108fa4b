"""The ControllerRevision of a revision: what it serves, and its Deployment, to be applied again as it was."""

from collections.abc import Sequence

from pydantic import ValidationError

from hone.api.modeldeployment import Candidate, ModelDeploymentStatus, Revision
from hone.core import names
from hone.core.children import ChildType, Standing, Write, metadata, standing
from hone.core.modeldeployment.resources.deployment import strategy
from hone.core.modeldeployment.server import STEP, Server
from hone.core.observed import Object, Ref

RECORD = ChildType("apps/v1", "ControllerRevision", Write.CREATE_ONCE, indexed=False)
"""It is read only to go back, or where a status was lost."""


def record_ref(server: Server, revision: str) -> Ref:
    """The ControllerRevision of a revision."""
    return RECORD.ref(names.unique(server.name, server.uid, "revision", revision))


def record(server: Server, revision: Revision, deployment: Object | None) -> Object:
    """The ControllerRevision.

    Args:
        server: the ModelDeployment.
        revision: what it serves.
        deployment: its Deployment in the role stable; None: another spec or release rendered it, and it is not known.
    """
    meta = metadata(server.resource, record_ref(server, revision.revision).name, STEP)
    meta["labels"][names.REVISION_LABEL] = revision.revision
    data: Object = {"revision": plain(revision).to_dict()}
    return {
        "apiVersion": RECORD.api_version,
        "kind": RECORD.kind,
        "metadata": meta,
        "revision": server.resource["metadata"].get("generation", 1),
        "data": data | ({"deployment": deployment} if deployment else {}),
    }


def recorded_revision(server: Server, obj: Object | None) -> Revision | None:
    """What a ControllerRevision of ours says is served; None if there is none, or it cannot be read."""
    if obj is None or standing(server.resource, obj) != Standing.OURS:
        return None
    try:
        return Revision.from_dict((obj.get("data") or {}).get("revision") or {})
    except ValidationError:
        return None


def recorded_deployment(server: Server, obj: Object | None) -> Object | None:
    """The Deployment in a ControllerRevision of ours, with the number of pods and the strategy that the spec has now.

    With its former strategy, its pods could wait for a GPU that those of a rejected revision have.
    """
    if obj is None or standing(server.resource, obj) != Standing.OURS:
        return None
    known = (obj.get("data") or {}).get("deployment")
    if not known:
        return None
    spec = {key: value for key, value in known["spec"].items() if key != "replicas"}
    replicas = {} if server.spec.replicas is None else {"replicas": server.spec.replicas}
    return {**known, "spec": {**replicas, **spec, "strategy": strategy(server)}}


def unrecorded(server: Server, status: ModelDeploymentStatus) -> list[Revision]:
    """The revisions of the status that have no ControllerRevision yet, as far as it says."""
    if server.spec.rollout is None:
        return []
    known = status.history or []
    return [each for each in (status.stable, status.candidate) if each and each.revision not in known]


def surplus(server: Server, status: ModelDeploymentStatus) -> list[str]:
    """The revisions whose ControllerRevisions are too many, the oldest first."""
    known = status.history or []
    used = {each.revision for each in (status.stable, status.candidate) if each}
    count = max(0, len(known) - server.spec.revision_history_limit)
    return [each for each in known if each not in used][:count]


def history(status: ModelDeploymentStatus, added: Sequence[Revision], dropped: Sequence[str]) -> list[str] | None:
    """The revisions with ControllerRevisions from now on."""
    names_ = [*(status.history or []), *(each.revision for each in added)]
    return [each for each in dict.fromkeys(names_) if each not in dropped] or None


def plain(revision: Revision) -> Revision:
    """The revision without how far its rollout is."""
    fields = set(Candidate.model_fields) - set(Revision.model_fields)
    return Revision.model_validate(revision.model_dump(exclude=fields))
