"""The NetworkPolicy of a run's pods: only pods of the same run reach them, and they reach only these and DNS.

A stranger that reached a gang while it forms could become one of its ranks, and would be sent the weights.
"""

from hone.contract.runconfig import METRICS_PORT
from hone.core.finetunejob.run import PREPARE, Run
from hone.core.names import UID_LABEL
from hone.core.network import NetworkPeers, admit, dns, policy, tcp
from hone.core.observed import Object


def network_policy(run: Run) -> Object:
    """The policy for the pods of all steps.

    The operator and what scrapes metrics may connect to the port for these, which only trainer pods listen on.
    """
    peers = run.settings.network_policies or NetworkPeers()
    own = {UID_LABEL: run.uid}
    ours = {"podSelector": {"matchLabels": own}}
    return policy(
        run.resource,
        run.network_policy,
        PREPARE,
        own,
        ingress=[*admit([ours]), *admit([*peers.operator, *peers.metrics], tcp(METRICS_PORT))],
        egress=[{"to": [ours]}, dns(), *peers.egress],
    )
