"""Decisions about the kind FineTuneJob."""

from pydantic import ValidationError

from hone.api import API_VERSION
from hone.api.finetunejob import KIND, PLURAL, FineTuneJobSpec
from hone.core.finetunejob.policies.gpus import are_unknown
from hone.core.finetunejob.policies.sharing import reads_peers
from hone.core.finetunejob.policies.upstream import job_refs
from hone.core.finetunejob.reconcile import idle, reconcile, refs, refused
from hone.core.finetunejob.resources.children import CHILD_TYPES
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.snapshot import is_drastic, may_lack
from hone.core.finetunejob.status.progress import target
from hone.core.kind import Kind
from hone.core.observed import Object, Ref


def _follows(resource: Object) -> tuple[Ref, ...]:
    """The jobs that this one waits for; none once it has started."""
    try:
        spec = FineTuneJobSpec.from_dict(resource["spec"])
    except ValidationError:
        return ()
    begun = (resource.get("status") or {}).get("preparedSpec") is not None
    return () if begun else tuple(sorted(set(job_refs(spec).values())))


FINETUNEJOB = Kind(
    name=KIND,
    plural=PLURAL,
    api_version=API_VERSION,
    subject=Run,
    children=CHILD_TYPES,
    refs=refs,
    may_lack=may_lack,
    reconcile=reconcile,
    reads_nodes=are_unknown,
    reads_peers=reads_peers,
    progress_target=target,
    is_drastic=is_drastic,
    idle=idle,
    follows=_follows,
    refused=refused,
)
