"""What spec.model stands for where it names no job: what a pod that inspects it reports, once for each spec.model.

Branches move and objects are replaced. All servers of a revision, also those that start later, must have the same
files: they get the commit and the digest that were there when the pod looked.
"""

import json
from collections.abc import Sequence

from hone.api.modeldeployment import ModelDeploymentStatus, ResolvedModel, ServedArtifactStatus
from hone.api.served_model import AdapterBase
from hone.contract.exits import FailureClass
from hone.contract.results import InspectedModel
from hone.contract.verdict import Verdict
from hone.core import names, reported
from hone.core import pods as podinfo
from hone.core.modeldeployment.selection import Selection, ServedArtifact, or_served
from hone.core.modeldeployment.server import INSPECT, Server
from hone.core.observed import Object, Pod, Ref

INSPECTING = "Inspecting"
BASE_PATH = "model"
"""The directory of a downloaded base in the volume that it is downloaded to."""


def spec_digest(server: Server) -> str:
    """Digest of spec.model."""
    return names.digest(json.dumps(server.resource["spec"]["model"], sort_keys=True), length=16)


def inspection_ref(server: Server) -> Ref:
    """The Job that inspects spec.model; another one for each spec.model."""
    return Ref("batch/v1", "Job", names.unique(server.name, server.uid, INSPECT, spec_digest(server)))


def resolved_model(server: Server, status: ModelDeploymentStatus) -> ResolvedModel | None:
    """What spec.model stands for, if that is known."""
    known = status.resolved
    return known if known and known.spec == spec_digest(server) else None


def is_unresolved(server: Server, status: ModelDeploymentStatus) -> bool:
    """Whether a pod has to inspect spec.model."""
    return server.job is None and resolved_model(server, status) is None


def resolve(server: Server, job: Object | None, pods: Sequence[Pod]) -> ResolvedModel | Selection:
    """What spec.model stands for, or why that is not known yet.

    Args:
        server: the ModelDeployment.
        job: the Job that inspects it, if there is one.
        pods: all pods of the ModelDeployment.
    """
    own = podinfo.of_job(pods, inspection_ref(server).name)
    results = [result for pod in own if (result := reported.step_result(_words(pod)))]
    inspected = next((result.inspected for result in results if result.inspected), None)
    if inspected is not None:
        return _resolved(server, inspected)
    verdict = next((result.verdict for result in reversed(results) if result.verdict), None)
    if job is not None and _has(job, "Failed"):
        return _failed(verdict)
    if trouble := podinfo.trouble(own):
        trouble = podinfo.without_image_volumes(trouble) if _has_image(server) else trouble
        return Selection(None, trouble.reason, f"the pod that inspects spec.model does not start: {trouble.message}")
    if verdict:
        return Selection(None, INSPECTING, f"trying again: {_message(verdict)}")
    return Selection(None, INSPECTING, "a pod reads what is at spec.model")


def select_resolved(known: ResolvedModel | Selection, status: ModelDeploymentStatus) -> Selection:
    """What to serve of a model that was published: what spec.model stands for, or what is served already."""
    if isinstance(known, Selection):
        return or_served(known, status)
    where = known.model.uri or (known.model.image.reference if known.model.image else "")
    served = ServedArtifact(None, known.artifact, known.model)
    return Selection(served, "ModelResolved", f"{where} is known", is_current=True)


def _words(pod: Pod) -> str:
    return str((podinfo.terminated(pod) or {}).get("message") or "")


def _has(job: Object, kind: str) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each.get("type") == kind and each.get("status") == "True" for each in conditions)


def _has_image(server: Server) -> bool:
    model = server.spec.model
    return bool(model.image or (model.base and model.base.image))


def _failed(verdict: Verdict | None) -> Selection:
    if verdict is None:
        message = "the pod that inspects spec.model ended without a result; it is tried again in some minutes"
        return Selection(None, "InspectionFailed", message)
    is_final = verdict.failure_class is FailureClass.BAD_INPUT
    reason = verdict.reason or (str(verdict.failure_class) if is_final else "InspectionFailed")
    return Selection(None, reason, _message(verdict), is_final=is_final)


def _message(verdict: Verdict) -> str:
    return reported.text(f"{verdict.message} {verdict.hint}" if verdict.hint else verdict.message)


def _resolved(server: Server, inspected: InspectedModel) -> ResolvedModel:
    model, artifact = server.spec.model, inspected.artifact
    base = _pinned_base(model.base, inspected.base_revision)
    update = {"revision": inspected.revision or model.revision, "digest": artifact.digest, "base": base}
    fields = artifact.model_dump() | {"weights_bytes": inspected.weights_bytes}
    if artifact.kind == "Adapter" and base:
        claim = base.claim.name if base.claim else None
        fields |= {"model_claim": claim, "model_path": _base_path(base)}
    return ResolvedModel(
        spec=spec_digest(server), model=model.model_copy(update=update), artifact=ServedArtifactStatus(**fields)
    )


def _pinned_base(base: AdapterBase | None, revision: str | None) -> AdapterBase | None:
    return base.model_copy(update={"revision": revision or base.revision}) if base else None


def _base_path(base: AdapterBase) -> str | None:
    if base.claim:
        return base.claim.path
    return base.image.path if base.image else BASE_PATH
