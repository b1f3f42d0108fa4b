"""Every object that the operator writes in the golden cases, and the NetworkPolicies of their pods.

`python -m tests.golden.objects` prints them as YAML, for tools that check manifests.
"""

import sys
from collections.abc import Iterator

import yaml

from hone.core.finetunejob.resources.networkpolicy import network_policy as policy_of_run
from hone.core.finetunejob.run import Run
from hone.core.modeldeployment.resources.networkpolicy import network_policy as policy_of_server
from hone.core.modeldeployment.server import Server
from hone.core.names import UID_LABEL
from hone.core.network import NetworkPeers
from hone.core.observed import Object
from hone.core.settings import Settings
from tests.golden.cases import expected, inputs

SETTINGS = Settings(network_policies=NetworkPeers())
"""As the chart installs the operator: the golden cases leave NetworkPolicies out."""


def objects() -> Iterator[tuple[str, Object]]:
    """The name of a case with the kind, and the object. Claims of other jobs, which exist already, are left out."""
    for name, case in inputs():
        plan = expected(name)
        written = [*plan.get("create", []), *(entry["body"] for entry in plan.get("apply", []))]
        ours = [body for body in written if UID_LABEL in (body["metadata"].get("labels") or {})]
        if any("template" in body.get("spec", {}) for body in ours):
            is_run = case.resource["kind"] == "FineTuneJob"
            ours.append(
                policy_of_run(Run(case.resource, SETTINGS))
                if is_run
                else policy_of_server(Server(case.resource, SETTINGS))
            )
        for body in ours:
            yield f"{name} {body['kind']}", body


if __name__ == "__main__":
    yaml.safe_dump_all([body for _, body in objects()], sys.stdout)
