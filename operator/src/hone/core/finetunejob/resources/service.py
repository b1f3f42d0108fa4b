"""The headless Service through which the ranks of several pods find pod 0."""

from hone.contract.runconfig import MASTER_PORT
from hone.core.children import metadata
from hone.core.finetunejob.run import TRAIN, Run
from hone.core.names import STEP_LABEL, UID_LABEL
from hone.core.observed import Object


def service(run: Run) -> Object:
    """A headless Service; names resolve before the pods are ready, since the pods wait for each other."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(run.resource, run.service, TRAIN),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {UID_LABEL: run.uid, STEP_LABEL: TRAIN},
            "ports": [{"name": "rendezvous", "port": MASTER_PORT, "targetPort": MASTER_PORT, "protocol": "TCP"}],
        },
    }
