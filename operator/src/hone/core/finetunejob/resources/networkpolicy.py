"""The NetworkPolicy of a run's pods: only pods of the same run reach them, and they reach only these and DNS.

A stranger that reached a gang while it forms could become one of its ranks, and would be sent the weights.
"""

from hone.contract.runconfig import METRICS_PORT, Download
from hone.core.finetunejob.run import FINISH, PREPARE, PUBLISH, Run
from hone.core.finetunejob.sources.data import data_sources
from hone.core.finetunejob.sources.models import model_sources
from hone.core.names import STEP_LABEL, UID_LABEL
from hone.core.network import HTTPS_PORT, NetworkPeers, Rule, admit, dns, policy, public, tcp
from hone.core.observed import Object


def network_policy(run: Run) -> Object:
    """The policy for the pods of all steps.

    The operator and what scrapes metrics may connect to the port for these, on which prepare and trainer pods listen.
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


def downloads(run: Run) -> bool:
    """Whether prepare downloads models or data."""
    read = (*data_sources(run).values(), *model_sources(run).values())
    entries = (entry for source in read for entry in source.materialize)
    return any(isinstance(entry, Download) for entry in entries)


def download_policy(run: Run) -> Object:
    """What the prepare pod may connect to in addition, to download models and data: HTTPS at public addresses."""
    return _by_https(run, run.download_policy, PREPARE)


def publish_policy(run: Run) -> Object:
    """What the publish pod may connect to in addition: HTTPS at public addresses."""
    return _by_https(run, run.publish_policy, PUBLISH)


def judge_policy(run: Run) -> Object:
    """What the finish pod may connect to in addition, to have answers compared: HTTPS at public addresses, and pods of
    its own namespace. It names no Service, because the judge may be edited, and a policy is never changed."""
    return _by_https(run, run.judge_policy, FINISH, {"to": [{"podSelector": {}}]})


def _by_https(run: Run, name: str, step: str, *others: Rule) -> Object:
    selector = {UID_LABEL: run.uid, STEP_LABEL: step}
    return policy(run.resource, name, step, selector, ingress=[], egress=[public(tcp(HTTPS_PORT)), *others])
