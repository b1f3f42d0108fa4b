"""Builders of objects for the tables: short to write, whole enough for the core."""

import copy
from typing import Any

from hone.contract.plan import DatasetSummary, MemoryEstimate, Plan
from hone.contract.results import ArtifactSummary, EvaluationSummary, Interval, Score, StepResult
from hone.contract.settings import Scheduler
from hone.contract.verdict import Verdict
from hone.core.observed import Pod

NAMESPACE = "team-a"


def finetunejob(name: str = "support-bot", uid: str = "11111111-aaaa", **spec: Any) -> dict[str, Any]:
    """A FineTuneJob on the CPU with its data in a ConfigMap."""
    return {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "model": {"claim": {"name": "base-models", "path": "tiny"}},
            "dataset": {"train": {"configMap": {"name": "reviews", "key": "train.jsonl"}}},
            "compute": {"gpusPerNode": 0},
            **spec,
        },
    }


def claim(name: str, **metadata: Any) -> dict[str, Any]:
    """A user's claim."""
    meta = {"name": name, "namespace": NAMESPACE, "uid": f"claim-{name}", **metadata}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta}


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A user's ConfigMap."""
    meta = {"name": name, "namespace": NAMESPACE, "uid": f"cm-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def training_plan(**more: Any) -> Plan:
    """A plan of 300 steps."""
    values: dict[str, Any] = {
        "total_steps": 300,
        "epochs": 3,
        "learning_rate": 2e-4,
        "scheduler": Scheduler.COSINE,
        "warmup_ratio": 0.03,
        "global_batch_size": 16,
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "sequence_length": 128,
        "weight_decay": 0,
        "max_grad_norm": 1,
        "world_size": 1,
        "zero_stage": 0,
        "precision": "float32",
        "checkpoint_every_steps": 30,
        "parameters": 3_700_000,
        "trainable_parameters": 200_000,
        "memory": MemoryEstimate(
            weights_bytes=1, gradients_bytes=1, optimizer_bytes=1, activations_bytes=1, overhead_bytes=1, total_bytes=5
        ),
    }
    return Plan(**{**values, **more})


def dataset(**more: Any) -> DatasetSummary:
    """A summary of 800 rows."""
    values: dict[str, Any] = {
        "digest": "sha256:da7a",
        "format": "Messages",
        "train_on": "Assistant",
        "train_rows": 640,
        "validation_rows": 80,
        "test_rows": 80,
    }
    return DatasetSummary(**{**values, **more})


def prepared(**plan: Any) -> StepResult:
    """What prepare leaves."""
    return StepResult(step="prepare", plan=training_plan(**plan), dataset=dataset())


def trained(step: int = 300, **figures: Any) -> StepResult:
    """What training leaves."""
    return StepResult(step="train", final_step=step, **figures)


def finished() -> StepResult:
    """What finish leaves."""
    score = Score(
        metric="exact_match",
        higher_is_better=True,
        samples=80,
        base=Interval(value=0.29, lower=0.2, upper=0.4),
        tuned=Interval(value=0.912, lower=0.84, upper=0.96),
        improvement=Interval(value=0.622, lower=0.551, upper=0.694),
    )
    artifact = ArtifactSummary(digest="sha256:a57e", size_bytes=1_000_000, kind="Adapter", lora_rank=32, base="tiny")
    return StepResult(step="finish", evaluation=EvaluationSummary(scores=[score]), artifact=artifact)


def verdict(cls: str, message: str = "it went wrong", **more: Any) -> StepResult:
    """What a step leaves that failed."""
    return StepResult(step="train", verdict=Verdict(failure_class=cls, message=message, **more))  # type: ignore[arg-type]


def pod(
    name: str = "p-0",
    job: str = "j",
    index: int = 0,
    phase: str = "Pending",
    state: dict[str, Any] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    reason: str | None = None,
    message: str | None = None,
    deleted: bool = False,
    gone: bool = False,
    labels: dict[str, str] | None = None,
) -> Pod:
    """A pod of a Job."""
    meta: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{name}",
        "labels": {
            "batch.kubernetes.io/job-name": job,
            "batch.kubernetes.io/job-completion-index": str(index),
            **(labels or {}),
        },
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": job, "controller": True}],
    }
    if deleted:
        meta["deletionTimestamp"] = "2026-01-01T00:05:00Z"
    status: dict[str, Any] = {"phase": phase, "conditions": conditions or []}
    if state is not None:
        status["containerStatuses"] = [{"name": "c", "state": copy.deepcopy(state)}]
    if reason:
        status |= {"reason": reason, "message": message or ""}
    return Pod({"metadata": meta, "spec": {"nodeName": "node-1"}, "status": status}, gone)


def exited(code: int, message: str | StepResult = "", reason: str = "") -> dict[str, Any]:
    """A container's state after its end."""
    text = message if isinstance(message, str) else message.to_json()
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": text,
            "startedAt": "2026-01-01T00:01:00Z",
            "finishedAt": "2026-01-01T00:04:00Z",
        }
    }


RUNNING = {"running": {"startedAt": "2026-01-01T00:01:00Z"}}


def failed_job(message: str = "", reason: str = "PodFailurePolicy", name: str = "j", **spec: Any) -> dict[str, Any]:
    """A Job that has failed."""
    conditions = [{"type": "Failed", "status": "True", "reason": reason, "message": message}]
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    """A condition."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def modeldeployment(name: str = "bot", uid: str = "mdep-uid", **spec: Any) -> dict[str, Any]:
    """A ModelDeployment on the CPU that follows the job `job`."""
    return {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "generation": 1, "resourceVersion": "1"},
        "spec": {"model": {"jobRef": {"name": "job"}}, "gpus": 0, **spec},
    }


def complete_job(digest: str, uid: str = "job-uid", claim: str = "job-output") -> dict[str, Any]:
    """A FineTuneJob `job` that has ended well with an adapter."""
    job = finetunejob("job", uid)
    job["status"] = {
        "phase": "Succeeded",
        "conditions": [condition("Complete", "True", "Succeeded"), condition("Promotable", "True", "NoGate")],
        "artifact": {
            "digest": digest,
            "sizeBytes": 1_000_000,
            "kind": "Adapter",
            "loraRank": 32,
            "base": "tiny",
            "claim": claim,
            "modelClaim": "base-models",
            "modelPath": "tiny",
            "weightsBytes": 15_800_000,
        },
    }
    return job


def artifact_claim(name: str = "job-output", job_uid: str = "job-uid") -> dict[str, Any]:
    """The claim that `job` made for its artifact."""
    owner = {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "FineTuneJob",
        "name": "job",
        "uid": job_uid,
        "controller": True,
    }
    return claim(
        name,
        labels={"hone.dev/uid": job_uid, "hone.dev/step": "finish"},
        annotations={"hone.dev/owner": "FineTuneJob/job"},
        ownerReferences=[owner],
    )
