"""Decisions about the kind FineTuneJob."""

from hone.api import API_VERSION
from hone.api.finetunejob import KIND, PLURAL
from hone.core.finetunejob.progress import target
from hone.core.finetunejob.reconcile import idle, reconcile, refs, refused
from hone.core.kind import Kind
from hone.core.observed import Object, Ref


def _follows(resource: Object) -> tuple[Ref, ...]:
    return ()


FINETUNEJOB = Kind(
    name=KIND,
    plural=PLURAL,
    api_version=API_VERSION,
    refs=refs,
    reconcile=reconcile,
    progress_target=target,
    idle=idle,
    follows=_follows,
    refused=refused,
)
