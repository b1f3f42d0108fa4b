"""The status of a ModelDeployment: phase, conditions and figures, all observed."""

from datetime import datetime

from hone.api.modeldeployment import ModelDeploymentStatus, Phase
from hone.core.conditions import FALSE, TRUE, UNKNOWN, Finding, kstatus, merge
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.resources import vllm
from hone.core.modeldeployment.selection import COMPLETE, FINAL, short
from hone.core.modeldeployment.snapshot import Look

WAITING = ("WaitingForJob", "ArtifactNotFound")


def _state(look: Look) -> tuple[str, str, str]:
    """kstatus' view: which of the three holds, its reason and message."""
    selection = look.selection
    if look.release is None:
        return ("Stalled" if selection.reason in FINAL else "Reconciling"), selection.reason, selection.message
    if look.blocked and not look.complete:
        return "Reconciling", look.blocked.reason, look.blocked.message
    if look.complete:
        message = f"serving {short(look.release.artifact.digest)}"
        return "Ready", "Serving", message if selection.reason == COMPLETE else selection.message
    if look.trouble:
        return ("Stalled" if rollout.is_stuck(look.live) else "Reconciling"), look.trouble.reason, look.trouble.message
    if look.rendered is None and rollout.is_stuck(look.live):
        return "Stalled", "ProgressDeadlineExceeded", "the server does not start and does not tell why; see its logs"
    return "Reconciling", "RollingOut", f"rolling out {short(look.release.artifact.digest)}"


def _available(look: Look) -> Finding:
    kind = "Available"
    if look.available:
        return Finding(kind, TRUE, "ServersReady")
    if look.server.spec.replicas == 0:
        return Finding(kind, FALSE, "ScaledToZero", "spec.replicas is 0")
    _, reason, message = _state(look)
    return Finding(kind, FALSE, "NoServerReady" if reason == "Serving" else reason, message)


def _progressing(look: Look) -> Finding:
    """True while a rollout goes on; else why none does, and where the followed job stands."""
    kind, selection = "Progressing", look.selection
    if look.release is None or (look.complete and selection.reason != COMPLETE):
        return Finding(kind, UNKNOWN if selection.reason in WAITING else FALSE, selection.reason, selection.message)
    if look.complete:
        return Finding(kind, FALSE, "RolledOut", f"serving {short(look.release.artifact.digest)}")
    state, reason, message = _state(look)
    return Finding(kind, FALSE if state == "Stalled" else TRUE, reason, message)


def _phase(look: Look) -> Phase:
    state, _, _ = _state(look)
    if look.complete:
        return Phase.AVAILABLE
    if state == "Stalled" and not look.available:
        return Phase.FAILED
    return Phase.WAITING if look.release is None else Phase.PROGRESSING


def status(look: Look, now: datetime) -> ModelDeploymentStatus:
    """The whole new status."""
    server, live = look.server, (look.live or {}).get("status") or {}
    generation = server.resource["metadata"].get("generation")
    found = [_available(look), _progressing(look), *kstatus(*_state(look))]
    return ModelDeploymentStatus(
        phase=_phase(look),
        observed_generation=generation,
        conditions=merge(look.old.conditions, found, generation, now),
        api=vllm.api_of(look.release) if look.release else None,
        url=server.url if look.release else None,
        served_name=server.served_name,
        replicas=live.get("replicas", 0),
        ready_replicas=live.get("readyReplicas", 0),
        selector=",".join(f"{key}={value}" for key, value in server.selector.items()),
        stable=look.stable,
        candidate=look.candidate,
    )
