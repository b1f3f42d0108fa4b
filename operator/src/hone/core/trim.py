"""The fields of an object that decisions read. Everything else is dropped before an object is kept in memory."""

from typing import Any

from hone.core.names import (
    COMPLETION_INDEX_LABEL,
    INPUTS_ANNOTATION,
    OWNER_ANNOTATION,
    QUEUE_LABEL,
    RETAIN_ANNOTATION,
    REVISION_LABEL,
    SPEC_ANNOTATION,
    STEP_LABEL,
    UID_LABEL,
)
from hone.core.observed import Object

MAX_TEXT = 8192
"""Characters that are kept of a text in an object of Kubernetes' own kinds. A termination message has at most 4096."""
MAX_ITEMS = 256
"""Items that are kept of such an object's list."""

WHOLE = True
_Tree = dict[str, Any]
"""Names of fields to the tree below them, or WHOLE. A list is trimmed item by item."""


def _names(*fields: str) -> _Tree:
    return dict.fromkeys(fields, WHOLE)


_LABELS = (UID_LABEL, STEP_LABEL, REVISION_LABEL, COMPLETION_INDEX_LABEL, QUEUE_LABEL)
_ANNOTATIONS = (OWNER_ANNOTATION, RETAIN_ANNOTATION, INPUTS_ANNOTATION, SPEC_ANNOTATION)
_METADATA: _Tree = {
    **_names("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp"),
    "ownerReferences": WHOLE,
    "labels": _names(*_LABELS),
    "annotations": _names(*_ANNOTATIONS),
}
_CONDITIONS = _names("type", "status", "reason", "message")
_CONTAINER = _names("name", "state", "lastState", "ready", "restartCount")

FIELDS: dict[str, _Tree] = {
    "Job": {
        "spec": {
            **_names("suspend", "activeDeadlineSeconds"),
            "template": {
                "spec": {
                    "containers": {"volumeMounts": _names("name", "mountPath")},
                    "volumes": {"name": WHOLE, "configMap": _names("name")},
                }
            },
        },
        "status": {**_names("active", "terminating", "failed", "succeeded", "startTime"), "conditions": _CONDITIONS},
    },
    "Pod": {
        "spec": _names("nodeName"),
        "status": {
            **_names("phase", "reason", "message", "podIP"),
            "conditions": _CONDITIONS,
            "containerStatuses": _CONTAINER,
            "initContainerStatuses": _CONTAINER,
        },
    },
    "Deployment": {
        "spec": {
            "replicas": WHOLE,
            "template": {
                "metadata": {"labels": _names(REVISION_LABEL)},
                "spec": {
                    "volumes": {"name": WHOLE, "secret": _names("secretName"), "configMap": _names("name")},
                },
            },
        },
        "status": {
            **_names("observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas"),
            "conditions": _CONDITIONS,
        },
    },
    "ControllerRevision": {"data": WHOLE},
    "Service": {"spec": _names("selector", "ports")},
    "PersistentVolumeClaim": {},
    "ConfigMap": {},
    "NetworkPolicy": {},
}
"""By kind, in addition to the metadata. Resources of our own kinds keep spec and status whole."""
_OURS: _Tree = _names("spec", "status")


def trimmed(obj: Object) -> Object:
    """A copy of an object with the fields that decisions read. A decision about it is the same as about the object."""
    tree = FIELDS.get(obj["kind"])
    fields = {"apiVersion": WHOLE, "kind": WHOLE, "metadata": _METADATA, **(_OURS if tree is None else tree)}
    result: Object = _trim(obj, fields, cut=tree is not None)
    return result


def _trim(value: Any, tree: Any, cut: bool) -> Any:
    if isinstance(value, dict):
        if tree is WHOLE:
            return {key: _trim(item, WHOLE, cut) for key, item in value.items()}
        return {key: _trim(value[key], below, cut) for key, below in tree.items() if key in value}
    if isinstance(value, list):
        return [_trim(item, tree, cut) for item in (value[:MAX_ITEMS] if cut else value)]
    return value[:MAX_TEXT] if cut and isinstance(value, str) else value
