"""The PodDisruptionBudget of a server: a drain of nodes stops one of several pods at a time."""

from hone.api.modeldeployment import Role
from hone.core.children import ChildType, Write, metadata
from hone.core.modeldeployment.server import STEP, Server
from hone.core.observed import Object

BUDGET = ChildType("policy/v1", "PodDisruptionBudget", Write.APPLY, metadata_only=True)


def budget(server: Server) -> Object:
    """The budget of the stable role. A single pod may still be evicted, or no node that has it could be drained.

    A pod that is not ready may be evicted whatever the others do: it answers nobody.
    """
    return {
        "apiVersion": BUDGET.api_version,
        "kind": BUDGET.kind,
        "metadata": metadata(server.resource, server.budget.name, STEP),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": server.selector(Role.STABLE)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
