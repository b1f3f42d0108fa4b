"""The status of a ModelDeployment: phase, conditions and figures, all observed."""

from datetime import datetime

from hone.api.modeldeployment import ModelDeploymentStatus, Phase, Role, RoleStatus
from hone.api.rollout import Strategy
from hone.contract.analysis import AnalysisVerdict
from hone.core.conditions import FALSE, TRUE, UNKNOWN, Finding, find, kstatus, merge
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.analysis import settings, shown
from hone.core.modeldeployment.canary import Canary
from hone.core.modeldeployment.resolution import INSPECTING
from hone.core.modeldeployment.resources import access, vllm
from hone.core.modeldeployment.resources.deployment import revision_of
from hone.core.modeldeployment.selection import short
from hone.core.modeldeployment.snapshot import REJECTED, Snapshot
from hone.core.modeldeployment.status.performance import performance
from hone.core.network import enforcement
from hone.core.times import seconds_since

ANALYZED = {AnalysisVerdict.PASS: TRUE, AnalysisVerdict.FAIL: FALSE, AnalysisVerdict.INCONCLUSIVE: UNKNOWN}
PROGRESSING = {"Stalled": FALSE, "Paused": UNKNOWN, "Reconciling": TRUE}
"""Whether a rollout that is not complete continues, by what it waits for."""
WAITING = ("WaitingForJob", "ArtifactNotFound", INSPECTING)


def _state(snapshot: Snapshot) -> tuple[str, str, str]:
    """kstatus' view: which of the three holds, its reason and message."""
    selection = snapshot.selection
    if snapshot.artifact is None:
        return ("Stalled" if selection.is_final else "Reconciling"), selection.reason, selection.message
    if snapshot.blocked and not snapshot.complete:
        return "Reconciling", snapshot.blocked.reason, snapshot.blocked.message
    if snapshot.complete:
        message = f"serving {short(snapshot.artifact.digest)}{access.warning(snapshot.server)}"
        return "Ready", "Serving", message if selection.is_current else selection.message
    if snapshot.rejection:
        message = f"{snapshot.rejection.message}; still serving {_served_now(snapshot)}"
        return "Reconciling", REJECTED, message
    if move := snapshot.canary:
        return _of_candidate(snapshot, move)
    if trouble := snapshot.trouble:
        is_final = rollout.is_stuck(snapshot.live) or trouble.reason in rollout.FINAL
        return ("Stalled" if is_final else "Reconciling"), trouble.reason, trouble.message
    if snapshot.rendered is None and rollout.is_stuck(snapshot.live):
        return "Stalled", *_stuck(snapshot)
    return "Reconciling", "RollingOut", f"rolling out {short(snapshot.artifact.digest)}"


def _stuck(snapshot: Snapshot) -> tuple[str, str]:
    """Reason and message of servers that have not become ready in time."""
    message = f"the server does not start and reports no reason; see its logs{access.advice(snapshot.server)}"
    return "ProgressDeadlineExceeded", message


def _of_candidate(snapshot: Snapshot, move: Canary) -> tuple[str, str, str]:
    """What a candidate next to the stable revision waits for."""
    reason, message = move.reason, move.message
    is_stuck = snapshot.trouble is None and snapshot.tried is None and rollout.is_stuck(snapshot.other)
    if is_stuck:
        reason, message = _stuck(snapshot)
    is_final = is_stuck or (snapshot.trouble is not None and snapshot.trouble.reason in rollout.FINAL)
    state = "Stalled" if is_final else "Paused" if move.is_paused else "Reconciling"
    return state, reason, f"{message}; still serving {_served_now(snapshot)}"


def _served_now(snapshot: Snapshot) -> str:
    return short(snapshot.known.digest) if snapshot.known else "nothing"


def _available(snapshot: Snapshot) -> Finding:
    kind = "Available"
    if snapshot.available:
        return Finding(kind, TRUE, "ServersReady")
    if snapshot.server.spec.replicas == 0:
        return Finding(kind, FALSE, "ScaledToZero", "spec.replicas is 0")
    _, reason, message = _state(snapshot)
    return Finding(kind, FALSE, "NoServerReady" if reason == "Serving" else reason, message)


def _progressing(snapshot: Snapshot) -> Finding:
    """True during a rollout; or why there is none, with the state of the followed job."""
    kind, selection = "Progressing", snapshot.selection
    if snapshot.artifact is None or (snapshot.complete and not selection.is_current):
        return Finding(kind, UNKNOWN if selection.reason in WAITING else FALSE, selection.reason, selection.message)
    if snapshot.complete:
        return Finding(kind, FALSE, "RolledOut", f"serving {short(snapshot.artifact.digest)}")
    state, reason, message = _state(snapshot)
    return Finding(kind, PROGRESSING[state], reason, message)


def _phase(snapshot: Snapshot) -> Phase:
    state, _, _ = _state(snapshot)
    if snapshot.complete:
        return Phase.AVAILABLE
    if state == "Stalled" and not snapshot.available:
        return Phase.FAILED
    return Phase.WAITING if snapshot.artifact is None else Phase.PROGRESSING


def _role(snapshot: Snapshot, role: Role) -> RoleStatus:
    """The pods of a role."""
    live = (snapshot.live if role == Role.STABLE else snapshot.other) or {}
    observed = live.get("status") or {}
    return RoleStatus(
        role=role,
        revision=(revision_of(live) or None) if live else None,
        replicas=observed.get("replicas", 0),
        ready_replicas=observed.get("readyReplicas", 0),
        selector=",".join(f"{key}={value}" for key, value in snapshot.server.selector(role).items()),
    )


def _analyzed(snapshot: Snapshot) -> list[Finding]:
    """What the last analysis showed; nothing without one."""
    last = shown(snapshot.server, snapshot.old, snapshot.revision, snapshot.analysis)
    if settings(snapshot.server) is None or last is None:
        return []
    if last.result is not None:
        return [Finding("Analyzed", ANALYZED[last.result.verdict], str(last.result.verdict), last.result.message)]
    trouble = snapshot.analysis.trouble if snapshot.analysis else None
    reason, message = (trouble.reason, trouble.message) if trouble else ("Analyzing", "")
    return [Finding("Analyzed", UNKNOWN, reason, message)]


def _downtime(snapshot: Snapshot, now: datetime) -> int | None:
    """Seconds without a server in the last rollout that ends the old ones first, once one answers again."""
    before = find(snapshot.old.conditions, "Available")
    ended = snapshot.available and before is not None and before.status == FALSE
    # Or the pods were scaled to none, and are back.
    rolls = snapshot.old.candidate is not None or snapshot.selection.reason == REJECTED
    if snapshot.server.strategy == Strategy.RECREATE and snapshot.known and rolls and before and ended:
        return round(seconds_since(before.last_transition_time, now))
    return snapshot.old.downtime_seconds


def status(snapshot: Snapshot, now: datetime) -> ModelDeploymentStatus:
    """The whole new status."""
    served = snapshot.selection.served
    server, stable = snapshot.server, _role(snapshot, Role.STABLE)
    has_other = snapshot.other is not None or snapshot.tries
    roles = [*([stable] if snapshot.live else []), *([_role(snapshot, Role.CANDIDATE)] if has_other else [])]
    generation = server.resource["metadata"].get("generation")
    findings = [_available(snapshot), _progressing(snapshot), *_analyzed(snapshot), *kstatus(*_state(snapshot))]
    return ModelDeploymentStatus(
        phase=_phase(snapshot),
        observed_generation=generation,
        conditions=merge(snapshot.old.conditions, findings, generation, now),
        api=vllm.api_of(served) if served else None,
        url=server.url if served else None,
        served_name=server.served_name,
        replicas=stable.replicas,
        ready_replicas=stable.ready_replicas,
        selector=stable.selector,
        access=access.status(server),
        network_policy=enforcement(server.settings.network_policies),
        resolved=snapshot.resolved,
        stable=snapshot.stable,
        candidate=snapshot.candidate,
        rejected=snapshot.rejected or None,
        analysis=shown(snapshot.server, snapshot.old, snapshot.revision, snapshot.analysis),
        performance=performance(snapshot),
        downtime_seconds=_downtime(snapshot, now),
        revisions=roles or None,
    )
