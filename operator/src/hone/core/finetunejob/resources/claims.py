"""The two claims that a run creates: workspace and output."""

from hone.api.finetunejob import Workspace
from hone.api.meta import AccessMode
from hone.api.output import Output
from hone.core.children import metadata
from hone.core.finetunejob.resources.runconfig import DEFAULT_OUTPUT_SIZE
from hone.core.finetunejob.run import FINISH, PREPARE, Run
from hone.core.names import RETAIN_ANNOTATION
from hone.core.observed import Object

DEFAULT_WORKSPACE_SIZE = "50Gi"


def _claim(run: Run, name: str, step: str, requested: Workspace | Output, size: str, mode: AccessMode) -> Object:
    spec: Object = {
        "accessModes": [str(value) for value in requested.access_modes or [mode]],
        "resources": {"requests": {"storage": requested.size or size}},
    }
    if requested.storage_class_name:
        spec["storageClassName"] = requested.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(run.resource, name, step),
        "spec": spec,
    }


def workspace_claim(run: Run) -> Object:
    """Scratch space of the run: prepared data, checkpoints. Several pods need to mount it at once."""
    mode = AccessMode.READ_WRITE_ONCE if run.compute.nodes == 1 else AccessMode.READ_WRITE_MANY
    return _claim(run, run.workspace_claim, PREPARE, run.workspace, DEFAULT_WORKSPACE_SIZE, mode)


def output_claim(run: Run) -> Object:
    """The artifact's claim. A retained one has no owner, and an annotation that keeps others from becoming one."""
    claim = _claim(run, run.output_claim, FINISH, run.output, DEFAULT_OUTPUT_SIZE, AccessMode.READ_WRITE_ONCE)
    if run.output.retain:
        del claim["metadata"]["ownerReferences"]
        claim["metadata"]["annotations"][RETAIN_ANNOTATION] = "true"
    return claim
