"""The analysis of a candidate: what is compared, and what the pod that asks both revisions reports."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hone.api.modeldeployment import ModelDeploymentStatus
from hone.api.rollout import AnalysisStatus, RolloutAnalysis
from hone.contract.analysis import AnalysisSummary
from hone.contract.exits import FailureClass
from hone.core import names, reported
from hone.core import pods as podinfo
from hone.core.modeldeployment.server import ANALYZE, Server
from hone.core.observed import Object, Pod, Ref
from hone.core.pods import Trouble


@dataclass(frozen=True)
class Analyzed:
    """How far the analysis of a candidate is.

    Attributes:
        key: names what is compared, and how.
        result: what it showed; None: nothing yet.
        trouble: why there is none: the pod does not start, or the analysis failed.
        is_over: whether only a person helps: the pod cannot use its input.
        has_job: whether there is a Job for it.
    """

    key: str
    result: AnalysisSummary | None = None
    trouble: Trouble | None = None
    is_over: bool = False
    has_job: bool = False


def settings(server: Server) -> RolloutAnalysis | None:
    """The spec's analysis."""
    return server.spec.rollout.analysis if server.spec.rollout else None


def key_of(server: Server, stable: str, candidate: str) -> str:
    """Names what is compared, and how: another one gives another Job."""
    spec = server.resource["spec"]["rollout"]
    parts = [spec.get("analysis"), spec.get("retry"), stable, candidate]
    return names.digest(json.dumps(parts, sort_keys=True), length=16)


def job_ref(server: Server, key: str) -> Ref:
    """The Job of an analysis."""
    return Ref("batch/v1", "Job", names.unique(server.name, server.uid, ANALYZE, key))


def due(server: Server, status: ModelDeploymentStatus) -> str | None:
    """The key of the analysis whose Job is to be read: of the candidate in status, as long as it has no result."""
    candidate = status.candidate
    if settings(server) is None or status.stable is None or candidate is None or candidate.step is not None:
        return None
    key = key_of(server, status.stable.revision, candidate.revision)
    return None if _known(status, key) else key


def superseded(server: Server, status: ModelDeploymentStatus) -> str | None:
    """The key of an analysis that runs and whose result nobody needs any more."""
    last = status.analysis
    return last.key if last and last.result is None and last.key != due(server, status) else None


def analyzed(
    server: Server, status: ModelDeploymentStatus, key: str, job: Object | None, pods: Sequence[Pod]
) -> Analyzed:
    """How far the analysis of that key is."""
    if known := _known(status, key):
        return Analyzed(key, known, has_job=True)
    own = podinfo.of_job(pods, job_ref(server, key).name)
    words = (str((podinfo.terminated(pod) or {}).get("message") or "") for pod in own)
    results = [result for text in words if (result := reported.step_result(text))]
    if summary := next((result.analysis for result in results if result.analysis), None):
        return Analyzed(key, summary, has_job=job is not None)
    verdict = next((result.verdict for result in reversed(results) if result.verdict), None)
    if verdict and verdict.failure_class is FailureClass.BAD_INPUT:
        message = reported.text(f"{verdict.message} {verdict.hint}" if verdict.hint else verdict.message)
        return Analyzed(key, None, Trouble(str(verdict.failure_class), message), is_over=True, has_job=job is not None)
    if job is not None and _failed(job):
        words_ = f": {reported.text(verdict.message)}" if verdict else ""
        message = f"the pod that asks both revisions ended without a result{words_}; it is tried again in some minutes"
        return Analyzed(key, None, Trouble("AnalysisFailed", message), has_job=True)
    return Analyzed(key, None, podinfo.trouble(own), has_job=job is not None)


def shown(
    server: Server, status: ModelDeploymentStatus, revision: str | None, now: Analyzed | None
) -> AnalysisStatus | None:
    """What status shows of it: the last one stays, but not one that nobody waits for."""
    if now and now.key:
        return AnalysisStatus(key=now.key, revision=revision or "", result=now.result)
    return None if superseded(server, status) else status.analysis


def _known(status: ModelDeploymentStatus, key: str) -> AnalysisSummary | None:
    return status.analysis.result if status.analysis and status.analysis.key == key else None


def _failed(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Failed" and each.get("status") == "True" for each in conditions)
