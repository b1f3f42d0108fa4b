"""The NetworkPolicy of a ModelDeployment's pods: who may call the model, and that the server itself calls nobody."""

import json

from hone.core.modeldeployment.analysis import settings
from hone.core.modeldeployment.resources.access import METRICS_PORT
from hone.core.modeldeployment.server import HTTP_PORT, STEP, Server
from hone.core.names import INPUTS_ANNOTATION, UID_LABEL, digest
from hone.core.network import HTTPS_PORT, NetworkPeers, Rule, admit, dns, policy, public, tcp
from hone.core.observed import Object


def network_policy(server: Server, downloads: bool = False) -> Object:
    """The policy for the pods of all roles, and for the one that inspects a model.

    The server's port is for pods of its own namespace and for `clients`, that of metrics for what scrapes them. A
    policy is about a whole pod: where an init container downloads the model, the server's own container may connect
    there as well.

    Args:
        server: the ModelDeployment.
        downloads: whether pods download a model, from public addresses.
    """
    peers = server.settings.network_policies or NetworkPeers()
    callers = [{"podSelector": {}}, *peers.clients]
    rendered = policy(
        server.resource,
        server.network_policy.name,
        STEP,
        {UID_LABEL: server.uid},
        ingress=[*admit(callers, tcp(HTTP_PORT)), *admit(peers.metrics, tcp(METRICS_PORT))],
        egress=[dns(), *peers.egress, *_asks(server), *([public(tcp(HTTPS_PORT))] if downloads else [])],
    )
    rendered["metadata"]["annotations"][INPUTS_ANNOTATION] = digest(json.dumps(rendered["spec"], sort_keys=True))
    return rendered


def _asks(server: Server) -> list[Rule]:
    """To the servers: what asks both revisions of a rollout. It is one of the pods that the policy is about."""
    if settings(server) is None:
        return []
    return [{"to": [{"podSelector": {"matchLabels": {UID_LABEL: server.uid}}}], "ports": [tcp(HTTP_PORT)]}]


def differs(server: Server, live: Object | None, downloads: bool = False) -> bool:
    """Whether the policy has to be applied: it does not exist, or was rendered from another spec.

    Specs are not compared: the API server fills in what administrators leave out of their peers, such as a protocol.
    """
    return live is None or _inputs(live) != _inputs(network_policy(server, downloads))


def _inputs(obj: Object) -> str | None:
    return (obj["metadata"].get("annotations") or {}).get(INPUTS_ANNOTATION)
