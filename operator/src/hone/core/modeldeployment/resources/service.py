"""The Services in front of the servers' pods: the endpoint, and the candidate's own."""

from hone.api.modeldeployment import Role
from hone.core.children import metadata
from hone.core.modeldeployment.server import SERVICE_PORT, STEP, Server
from hone.core.names import UID_LABEL
from hone.core.observed import Object


def service(server: Server, role: Role = Role.STABLE, selector: dict[str, str] | None = None) -> Object:
    """The Service of a role; the target port is the container's named one.

    Args:
        server: the ModelDeployment.
        role: the role.
        selector: the pods that it sends requests to; None: those of the role.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server.resource, server.service_of(role).name, STEP),
        "spec": {
            "selector": selector or server.selector(role),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def differs(desired: Object, live: Object | None) -> bool:
    """Whether a Service has to be applied. Ports that others added are kept."""
    if live is None or live["spec"].get("selector") != desired["spec"]["selector"]:
        return True
    ports = live["spec"].get("ports") or []
    return not all(any(port.items() <= other.items() for other in ports) for port in desired["spec"]["ports"])


def divided(server: Server, weight: int) -> dict[str, str]:
    """The pods that the endpoint sends requests to while the candidate gets `weight` percent by the number of pods.

    Pods of both roles have only the uid in common. Those of Jobs have it too, but not the port that the Service names,
    so none of them gets a request.
    """
    if weight <= 0:
        return server.selector(Role.STABLE)
    return server.selector(Role.CANDIDATE) if weight >= 100 else {UID_LABEL: server.uid}
