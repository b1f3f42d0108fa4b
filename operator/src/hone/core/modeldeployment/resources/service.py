"""The Service in front of the server's pods."""

from hone.api.modeldeployment import Role
from hone.core.children import metadata
from hone.core.modeldeployment.server import SERVICE_PORT, STEP, Server
from hone.core.observed import Object


def service(server: Server) -> Object:
    """The Service; the target port is the container's named one."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server.resource, server.service.name, STEP),
        "spec": {
            "selector": server.selector(Role.STABLE),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def differs(server: Server, live: Object | None) -> bool:
    """Whether the Service has to be applied. Ports that others added are kept."""
    if live is None or live["spec"].get("selector") != server.selector(Role.STABLE):
        return True
    ports = live["spec"].get("ports") or []
    return not all(any(port.items() <= other.items() for other in ports) for port in service(server)["spec"]["ports"])
