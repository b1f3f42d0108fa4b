"""Pods that should have ended and whose node does not confirm it: shown, with what to do, since nothing else is safe.

A node that only lost contact may still write to the volumes, and another attempt at the same time would spoil both.
Whoever knows that it is down says so by deleting its Node or by a taint, and Kubernetes then ends its pods.
"""

from hone.core.finetunejob.state import State
from hone.core.pods import Trouble
from hone.core.times import parse

UNCONFIRMED_SECONDS = 300.0
"""How long after the end of a pod's grace its node may take to confirm the pod's end."""
REASON = "NodeUnreachable"


def check_nodes(state: State) -> None:
    """Show the first pod whose end is overdue, or check again when one may be."""
    for pod in state.live_pods:
        # Kubernetes sets it to the moment at which the grace is over.
        if not (deadline := pod.raw["metadata"].get("deletionTimestamp")):
            continue
        left = UNCONFIRMED_SECONDS + (parse(deadline) - state.now).total_seconds()
        if left > 0:
            state.requeue.append(left)
            continue
        name, node = pod.raw["metadata"]["name"], (pod.raw.get("spec") or {}).get("nodeName", "none")
        state.trouble = Trouble(
            REASON,
            f"pod {name} was to end by {deadline}, but node {node} does not confirm it; no other attempt begins, since "
            "the node may still write. If it is down for good, delete the Node, or "
            f"`kubectl taint nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`",
        )
        return
