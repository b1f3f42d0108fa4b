"""The Job that reads what a published model is, before any server is rendered: it downloads a few small files."""

from hone.contract.exits import FailureClass, exit_code
from hone.core.children import metadata
from hone.core.modeldeployment.resolution import inspection_ref
from hone.core.modeldeployment.resources.fetching import container, fetching
from hone.core.modeldeployment.server import INSPECT, Server
from hone.core.observed import Object
from hone.core.podspec import pod_template, resources

ATTEMPTS = 4
"""How often the pod starts again after a failure that may pass, such as a store that does not answer."""
AGAIN_SECONDS = 600
"""When Kubernetes removes the Job after its end. If it failed, the next one is created then."""
LONGEST_SECONDS = 1800
GRACE_SECONDS = 5


def inspection(server: Server) -> Object:
    """The Job that inspects spec.model."""
    needs = fetching(server, server.spec.model, base_digest=None)
    small = resources(None, {"cpu": "200m", "memory": "1Gi"}, memory_limit="4Gi")
    code = exit_code(FailureClass.BAD_INPUT)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(server.resource, inspection_ref(server).name, INSPECT),
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "completionMode": "Indexed",
            "backoffLimit": ATTEMPTS,
            "activeDeadlineSeconds": LONGEST_SECONDS,
            "ttlSecondsAfterFinished": AGAIN_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [code]}},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": pod_template(
                server.resource,
                INSPECT,
                container(server, INSPECT, INSPECT, needs, small),
                needs.mounts,
                server.spec.pod,
                GRACE_SECONDS,
                shm_size="64Mi",
                restartPolicy="Never",
            ),
        },
    }
