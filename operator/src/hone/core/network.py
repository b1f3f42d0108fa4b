"""NetworkPolicies of pods: who may connect to them, and to whom they may connect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hone.api.meta import Enforcement
from hone.core.children import ChildType, Standing, Write, metadata, standing
from hone.core.observed import Object, Observed, Ref
from hone.core.plan import Delete

Peer = dict[str, Any]
"""A NetworkPolicyPeer: pods by their labels and namespaces, or a block of addresses."""
Rule = dict[str, Any]

POLICY = ChildType("networking.k8s.io/v1", "NetworkPolicy", Write.CREATE_ONCE, metadata_only=True)
APPLIED_POLICY = ChildType("networking.k8s.io/v1", "NetworkPolicy", Write.APPLY, metadata_only=True)
DNS_PORT = 53
HTTPS_PORT = 443
_PRIVATE = {
    "0.0.0.0/0": (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",
    ),
    "::/0": ("::1/128", "64:ff9b::/96", "fc00::/7", "fe80::/10"),
}
"""All addresses of each protocol, and those in them that are not public (IANA's special-purpose registries)."""


@dataclass(frozen=True)
class NetworkPeers:
    """Who may connect to the pods of users, in addition to the pods that belong together.

    Attributes:
        operator: the operator's own pod, which reads the progress of runs.
        metrics: what scrapes metrics, such as Prometheus.
        clients: what may call served models from another namespace, such as a gateway.
        egress: NetworkPolicyEgressRules: what all pods may connect to in addition to DNS.
        enforced: whether the cluster's network plugin is known to enforce NetworkPolicies.
    """

    operator: tuple[Peer, ...] = ()
    metrics: tuple[Peer, ...] = ()
    clients: tuple[Peer, ...] = ()
    egress: tuple[Rule, ...] = ()
    enforced: bool = False


def enforcement(peers: NetworkPeers | None) -> Enforcement | None:
    """What status says of the NetworkPolicy of a resource's pods; None if they have none."""
    if peers is None:
        return None
    return Enforcement.ENFORCED if peers.enforced else Enforcement.NOT_KNOWN


def has_unwanted(peers: NetworkPeers | None, known: Enforcement | None) -> bool:
    """Whether a resource has a policy from the time before policies were switched off, by what its status says."""
    return peers is None and known is not None


def removal(resource: Object, ref: Ref, observed: Observed) -> list[Delete]:
    """Deletes the policy of a resource, unless there is none, or it is not ours."""
    live = observed.get(ref)
    if live is None or standing(resource, live) != Standing.OURS:
        return []
    return [Delete(ref, live["metadata"]["uid"])]


def tcp(port: int) -> dict[str, Any]:
    """A TCP port of a rule."""
    return {"port": port, "protocol": "TCP"}


def admit(peers: Sequence[Peer], *ports: dict[str, Any]) -> list[Rule]:
    """Ingress from these peers, on all ports if none is given. No peers: no rule, since an empty list means anybody."""
    if not peers:
        return []
    rule: Rule = {"from": list(peers)}
    return [{**rule, "ports": list(ports)} if ports else rule]


def dns() -> Rule:
    """Egress to DNS. It names no pods, since DNS may run on the nodes."""
    return {"ports": [{"port": DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]}


def public(port: dict[str, Any]) -> Rule:
    """Egress to a port of public addresses: to no pod, node, service of the cluster or metadata of a cloud."""
    blocks = [{"ipBlock": {"cidr": cidr, "except": list(private)}} for cidr, private in _PRIVATE.items()]
    return {"to": blocks, "ports": [port]}


def policy(
    resource: Object, name: str, step: str, selector: dict[str, str], ingress: list[Rule], egress: list[Rule]
) -> Object:
    """A NetworkPolicy for the pods of a resource that have the labels `selector`.

    What it does not allow is refused where the cluster's network plugin enforces policies.
    """
    return {
        "apiVersion": POLICY.api_version,
        "kind": POLICY.kind,
        "metadata": metadata(resource, name, step),
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }
