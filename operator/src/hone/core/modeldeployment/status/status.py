"""The status of a ModelDeployment: phase, conditions and figures, all observed."""

from datetime import datetime

from hone.api.modeldeployment import ModelDeploymentStatus, Phase, Role, RoleStatus
from hone.core.conditions import FALSE, TRUE, UNKNOWN, Finding, kstatus, merge
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.resolution import INSPECTING
from hone.core.modeldeployment.resources import access, vllm
from hone.core.modeldeployment.resources.deployment import revision_of
from hone.core.modeldeployment.selection import short
from hone.core.modeldeployment.snapshot import Snapshot
from hone.core.network import enforcement

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
    if trouble := snapshot.trouble:
        is_final = rollout.is_stuck(snapshot.live) or trouble.reason in rollout.FINAL
        return ("Stalled" if is_final else "Reconciling"), trouble.reason, trouble.message
    if snapshot.rendered is None and rollout.is_stuck(snapshot.live):
        message = f"the server does not start and reports no reason; see its logs{access.advice(snapshot.server)}"
        return "Stalled", "ProgressDeadlineExceeded", message
    return "Reconciling", "RollingOut", f"rolling out {short(snapshot.artifact.digest)}"


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
    return Finding(kind, FALSE if state == "Stalled" else TRUE, reason, message)


def _phase(snapshot: Snapshot) -> Phase:
    state, _, _ = _state(snapshot)
    if snapshot.complete:
        return Phase.AVAILABLE
    if state == "Stalled" and not snapshot.available:
        return Phase.FAILED
    return Phase.WAITING if snapshot.artifact is None else Phase.PROGRESSING


def _stable(snapshot: Snapshot) -> RoleStatus:
    """The pods of the stable role."""
    live = snapshot.live or {}
    observed = live.get("status") or {}
    return RoleStatus(
        role=Role.STABLE,
        revision=(revision_of(live) or None) if live else None,
        replicas=observed.get("replicas", 0),
        ready_replicas=observed.get("readyReplicas", 0),
        selector=",".join(f"{key}={value}" for key, value in snapshot.server.selector(Role.STABLE).items()),
    )


def status(snapshot: Snapshot, now: datetime) -> ModelDeploymentStatus:
    """The whole new status."""
    served = snapshot.selection.served
    server, stable = snapshot.server, _stable(snapshot)
    generation = server.resource["metadata"].get("generation")
    findings = [_available(snapshot), _progressing(snapshot), *kstatus(*_state(snapshot))]
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
        revisions=[stable] if snapshot.live else None,
    )
