"""Packs trimmed objects into few bytes: JSON, compressed with a dictionary of what such objects have in common.

A finished run leaves a dozen small objects, whose texts differ in little more than their names.
"""

import json
import zlib
from functools import cache
from typing import Any

from hone.api import finetunejob, modeldeployment
from hone.api.finetunejob_status import FineTuneJobStatus
from hone.api.modeldeployment import ModelDeploymentStatus
from hone.contract.results import StepResult
from hone.core.observed import Object

LEVEL = 4
"""With a dictionary, quicker than level 1, and a fifth smaller."""

KNOWN = ("namespace", "name", "uid", "resourceVersion")
"""Fields of the metadata that are not packed."""
_RAW = -zlib.MAX_WBITS
"""Without zlib's header and checksum, ten bytes of each object."""
_TIME = "2026-01-01T00:00:00Z"
_CONDITIONS = (
    ("Validated", "True", "Validated", " rows to train on, "),
    ("Suspended", "False", "NotSuspended", ""),
    ("ProgressAvailable", "Unknown", "NotTraining", "no trainer pod is running"),
    ("Promotable", "True", "NoGate", "no minimum score is required"),
    ("Complete", "True", "Succeeded", "improvement over the base: +0."),
    ("Failed", "False", "Succeeded", ""),
    ("Finished", "True", "Succeeded", "improvement over the base: +0."),
    ("Ready", "True", "Succeeded", "improvement over the base: +0."),
    ("Reconciling", "False", "NothingToDo", ""),
    ("Stalled", "False", "NotStalled", ""),
)
_SPEC = {
    "compute": {"gpusPerNode": 0, "pod": {"annotations": {}}},
    "dataset": {"train": {"configMap": {"key": "train.jsonl", "name": ""}}},
    "model": {"claim": {"name": "", "path": ""}, "jobRef": {"name": ""}},
}
_MOUNTS = {
    "file-etc-hone": "/etc/hone",
    "claim-0": "/mnt/model",
    "claim-1": "/mnt/workspace/prepared",
    "file-mnt-data-train": "/mnt/data/train",
    "tmp": "/tmp",
    "shm": "/dev/shm",
}


def pack(obj: Object) -> bytes:
    """An object without what the caller knows: apiVersion and kind, and of the metadata `KNOWN`."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in KNOWN}
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    compressor = zlib.compressobj(LEVEL, wbits=_RAW, zdict=_dictionary())
    return compressor.compress(_text({**rest, "metadata": metadata})) + compressor.flush()


def unpack(data: bytes) -> Object:
    """What was packed."""
    obj: Object = json.loads(zlib.decompressobj(_RAW, zdict=_dictionary()).decompress(data))
    return obj


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@cache
def _dictionary() -> bytes:
    """Objects as they are after a run, without what differs; what is met most often comes last."""
    result = _text(_text(_skeleton(StepResult.model_json_schema())).decode())
    terminated = {"exitCode": 0, "reason": "Completed", "startedAt": _TIME, "finishedAt": _TIME, "message": ""}
    container = {"name": "", "state": {"terminated": terminated}, "ready": False}
    parts: list[Any] = [
        {"status": _skeleton(ModelDeploymentStatus.model_json_schema())},
        {"spec": _SPEC, "status": {**_skeleton(FineTuneJobStatus.model_json_schema()), "conditions": _conditions()}},
        *({"step": step, "number": 1, "startTime": _TIME, "result": "Succeeded"} for step in _STEPS),
        {"spec": {"nodeName": "node-"}, "status": {"phase": "Succeeded", "podIP": "10.", "conditions": _POD}},
        {"containerStatuses": [container]},
        {"spec": {"template": {"spec": {"containers": [{"volumeMounts": _mounts()}], "volumes": _volumes()}}}},
        {"status": {"succeeded": 1, "startTime": _TIME, "conditions": _JOB}},
        {"metadata": _metadata()},
    ]
    return result + b"".join(_text(part) for part in parts)


_STEPS = ("prepare", "train", "finish")
_POD = [{"type": each, "status": "True"} for each in ("PodScheduled", "Initialized", "Ready", "ContainersReady")]
_REACHED = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
_JOB = [{"type": each, "status": "True", **_REACHED} for each in ("SuccessCriteriaMet", "Complete")]


def _conditions() -> list[dict[str, Any]]:
    keys = ("type", "status", "reason", "message")
    more = {"lastTransitionTime": _TIME, "observedGeneration": 1}
    return [{**dict(zip(keys, each, strict=True)), **more} for each in _CONDITIONS]


def _mounts() -> list[dict[str, str]]:
    return [{"name": name, "mountPath": path} for name, path in _MOUNTS.items()]


def _volumes() -> list[dict[str, Any]]:
    return [{"name": name, **({"configMap": {"name": ""}} if "file" in name else {})} for name in _MOUNTS]


def _metadata() -> dict[str, Any]:
    owner = {"name": "", "uid": "", "controller": True, "blockOwnerDeletion": True}
    owners = {"apiVersion": "hone.dev/v1alpha1", "kind": finetunejob.KIND, **owner}
    return {
        "name": "-workspace-output-run-prepare-1-train-1-finish-1-0",
        "generation": 1,
        "creationTimestamp": _TIME,
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", **owner}, owners],
        "labels": {
            "hone.dev/uid": "",
            "hone.dev/step": "prepare",
            "batch.kubernetes.io/job-name": "",
            "batch.kubernetes.io/job-completion-index": "0",
        },
        "annotations": {
            "hone.dev/spec": "",
            "hone.dev/owner": f"{modeldeployment.KIND}/{finetunejob.KIND}/",
        },
    }


def _skeleton(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """An example of what a JSON schema describes, with all its fields in their order."""
    root = root or schema
    if "$ref" in schema:
        return _skeleton(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return _skeleton(schema["anyOf"][0], root)
    if "properties" in schema:
        return {name: _skeleton(each, root) for name, each in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_skeleton(schema.get("items", {}), root)]
    examples: dict[str, Any] = {"integer": 0, "number": 0.0, "boolean": False, "object": {}}
    return (schema.get("enum") or [examples.get(str(schema.get("type")), "")])[0]
