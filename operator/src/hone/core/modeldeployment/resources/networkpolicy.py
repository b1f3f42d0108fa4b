"""The NetworkPolicy of a ModelDeployment's pods: who may call the model, and that the server itself calls nobody."""

from hone.core.modeldeployment.server import HTTP_PORT, STEP, Server
from hone.core.names import UID_LABEL
from hone.core.network import NetworkPeers, admit, dns, policy, tcp
from hone.core.observed import Object


def network_policy(server: Server) -> Object:
    """The policy for the pods of all roles.

    The server's port is for pods of its own namespace, for `clients`, and for what scrapes metrics.
    """
    peers = server.settings.network_policies or NetworkPeers()
    callers = [{"podSelector": {}}, *peers.clients, *peers.metrics]
    return policy(
        server.resource,
        server.network_policy.name,
        STEP,
        {UID_LABEL: server.uid},
        ingress=admit(callers, tcp(HTTP_PORT)),
        egress=[dns(), *peers.egress],
    )


def differs(server: Server, live: Object | None) -> bool:
    """Whether the policy has to be applied: it does not exist, or allows something else."""
    return live is None or live["spec"] != network_policy(server)["spec"]
