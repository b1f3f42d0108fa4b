"""Decisions about the kind ModelDeployment."""

from datetime import datetime

from hone.api import API_VERSION
from hone.api.modeldeployment import KIND, PLURAL
from hone.core.kind import Fetched, Kind, ProgressTarget
from hone.core.observed import Object, Observed, Pod, Ref
from hone.core.plan import Plan
from hone.core.settings import Settings


def _refs(resource: Object, fetched: Fetched, settings: Settings) -> tuple[Ref, ...]:
    return ()


def _reconcile(resource: Object, observed: Observed, now: datetime, settings: Settings) -> Plan:
    return Plan()


def _progress_target(resource: Object, pods: tuple[Pod, ...]) -> ProgressTarget | None:
    return None


def _refused(resource: Object, target: str, words: str, now: datetime) -> Plan:
    return Plan()


MODELDEPLOYMENT = Kind(
    name=KIND,
    plural=PLURAL,
    api_version=API_VERSION,
    refs=_refs,
    reconcile=_reconcile,
    progress_target=_progress_target,
    idle=lambda resource: False,
    follows=lambda resource: (),
    refused=_refused,
)
