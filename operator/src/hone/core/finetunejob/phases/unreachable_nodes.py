"""Pods that should have terminated, but whose node does not confirm it: reported with what to do.

A node that only lost contact may still write to the volumes, and another attempt at the same time would corrupt them.
An administrator who knows that it is down deletes its Node or adds a taint; Kubernetes then removes its pods.
"""

from hone.core.finetunejob.state import State
from hone.core.pods import Trouble
from hone.core.times import parse

UNCONFIRMED_SECONDS = 300.0
"""How long after a pod's grace period its node may take to confirm that the pod has terminated."""
REASON = "NodeUnreachable"


def check_nodes(state: State) -> None:
    """Report the first pod that is overdue, or check again when one may be."""
    for pod in state.live_pods:
        # Kubernetes sets it to the end of the grace period.
        if not (deadline := pod.raw["metadata"].get("deletionTimestamp")):
            continue
        left = UNCONFIRMED_SECONDS + (parse(deadline) - state.now).total_seconds()
        if left > 0:
            state.requeue.append(left)
            continue
        name, node = pod.raw["metadata"]["name"], (pod.raw.get("spec") or {}).get("nodeName", "none")
        state.trouble = Trouble(
            REASON,
            f"pod {name} should have terminated by {deadline}, but node {node} has not confirmed it. The next attempt "
            "does not start, because the pod may still write to the volumes. If the node is permanently down, delete "
            f"the Node object, or run `kubectl taint nodes {node} "
            "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`",
        )
        return
