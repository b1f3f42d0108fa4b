"""ModelDeployment: serves a tuned model at an OpenAI-compatible endpoint."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.access import Access, AccessStatus
from hone.api.finetunejob_status import ArtifactStatus
from hone.api.meta import (
    Condition,
    Digest,
    EnvVar,
    NetworkPolicyStatus,
    PodSettings,
    ResourceRequirements,
)
from hone.api.rollout import HISTORY, MOST_STEPS, AnalysisStatus, Rejected, Rollout, ServerPerformance
from hone.api.served_model import ServedModel
from hone.contract.base import Model

KIND = "ModelDeployment"
PLURAL = "modeldeployments"


class Phase(StrEnum):
    """Phase of a deployment, for people; programs should read the conditions."""

    PENDING = "Pending"
    WAITING = "Waiting"
    PROGRESSING = "Progressing"
    AVAILABLE = "Available"
    FAILED = "Failed"


class Role(StrEnum):
    """What a revision is to the endpoint; each role has its own Deployment."""

    STABLE = "stable"
    """The revision that the endpoint's requests go to."""
    CANDIDATE = "candidate"
    """The revision that is tried, with strategy Canary."""


class ServedArtifactStatus(ArtifactStatus):
    """The artifact that is served."""

    claim: Annotated[
        str | None,
        Field(max_length=253, description="PersistentVolumeClaim with the model, if it is the result of a job."),
    ] = None  # type: ignore[assignment]


class Runtime(Model):
    """The vLLM server."""

    image: Annotated[
        str | None,
        Field(min_length=1, max_length=1024, description="Server image. Default: the one configured in the operator."),
    ] = None
    args: Annotated[
        list[Annotated[str, Field(max_length=1024)]] | None,
        Field(
            max_length=64,
            description="Arguments to add to vLLM's command line. They take precedence over those set by Hone. "
            "docs/serving.md lists those that are allowed.",
        ),
    ] = None
    env: Annotated[list[EnvVar] | None, Field(max_length=64, description="Environment variables to add.")] = None


class ModelDeploymentSpec(Model):
    """Desired state of the ModelDeployment."""

    model: Annotated[ServedModel, Field(description="Model to serve.")]
    served_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[A-Za-z0-9][-._A-Za-z0-9/]*$",
            description="Model name that clients send in the field 'model' of a request. Default: this resource's "
            "name.",
        ),
    ] = None
    replicas: Annotated[
        int | None,
        Field(ge=0, le=1000, description="Number of server pods. Omit it if an autoscaler sets it. Default: 1."),
    ] = None
    gpus: Annotated[
        int, Field(ge=0, le=64, description="Number of GPUs per server pod (tensor parallelism). 0 serves on the CPU.")
    ] = 1
    gpu_resource: Annotated[
        str, Field(min_length=1, max_length=253, description="Name of the GPU resource in Kubernetes.")
    ] = "nvidia.com/gpu"
    runtime: Annotated[Runtime | None, Field(description="Image, arguments and environment of the vLLM server.")] = None
    resources: Annotated[
        ResourceRequirements | None,
        Field(
            description="CPU and memory per server pod. GPUs are set by gpus. Default: 4 CPUs and 16Gi per GPU, at "
            "most 128Gi; on the CPU 1 CPU and 3Gi, at most 8Gi and twice the size of the weights."
        ),
    ] = None
    pod: Annotated[PodSettings | None, Field(description="Settings of the server pods.")] = None
    access: Annotated[
        Access | None, Field(description="Whom the server answers. Default: requests with a key (mode Key).")
    ] = None
    start_deadline_seconds: Annotated[
        int | None,
        Field(
            ge=10,
            le=604_800,
            description="Seconds within which a server must be ready after its start. Default: 600, plus 20 for each "
            "GB of weights.",
        ),
    ] = None
    drain_seconds: Annotated[
        int,
        Field(ge=0, le=3600, description="Seconds that a server has to finish running requests when it is stopped."),
    ] = 120
    rollout: Annotated[
        Rollout | None,
        Field(
            description="How a new revision replaces the old one. Default: pods are replaced one by one. A change of "
            "it restarts no server."
        ),
    ] = None
    revision_history_limit: Annotated[
        int,
        Field(
            ge=1,
            le=HISTORY,
            description="Number of revisions that are kept as ControllerRevisions, with rollout: what is served, and "
            "those before.",
        ),
    ] = 3


class Revision(Model):
    """A model that was rolled out. Holds everything needed to render its server, so that its job may be deleted."""

    revision: Annotated[str, Field(max_length=64, description="Hash of artifact, base model and server template.")]
    digest: Annotated[Digest, Field(description="Digest of the artifact's files.")]
    job: Annotated[
        str | None, Field(max_length=253, description="FineTuneJob in this namespace that produced the artifact.")
    ] = None
    model: Annotated[
        ServedModel | None,
        Field(description="Where the artifact is, if it was published: spec.model with commits instead of branches."),
    ] = None
    artifact: Annotated[ServedArtifactStatus, Field(description="Artifact that is served.")]


class Candidate(Revision):
    """A revision that is being rolled out, and how far it is."""

    weight: Annotated[
        int | None, Field(ge=0, le=100, description="Percent of the requests that it gets, with strategy Canary.")
    ] = None
    step: Annotated[
        int | None,
        Field(
            ge=0,
            le=MOST_STEPS,
            description="Number of steps of spec.rollout that are over. All of them: it replaces the old revision.",
        ),
    ] = None
    since: Annotated[
        str | None, Field(max_length=32, description="Since when the share of the current step is in force.")
    ] = None


class ResolvedModel(Model):
    """What spec.model stands for, if it names no job."""

    spec: Annotated[str, Field(max_length=64, description="Hash of the spec.model that was resolved.")]
    model: Annotated[
        ServedModel, Field(description="spec.model with commits instead of branches, and with the digest found there.")
    ]
    artifact: Annotated[ServedArtifactStatus, Field(description="The artifact that is there.")]


class RoleStatus(Model):
    """The pods of one role."""

    role: Annotated[Role, Field(description="Role of the pods, as in their label hone.dev/role.")]
    revision: Annotated[
        str | None,
        Field(max_length=64, description="Revision that the pods run, or that replaces theirs while it is rolled out."),
    ] = None
    replicas: Annotated[int | None, Field(ge=0, description="Number of pods.")] = None
    ready_replicas: Annotated[int | None, Field(ge=0, description="Number of pods that are ready.")] = None
    selector: Annotated[str | None, Field(max_length=512, description="Label selector of the pods.")] = None


class ModelDeploymentStatus(Model):
    """Observed state of the ModelDeployment."""

    phase: Annotated[
        Phase | None, Field(description="Current phase, to be read by people. Programs should read the conditions.")
    ] = None
    observed_generation: Annotated[
        int | None, Field(ge=0, description="Generation of the spec that the operator last acted on.")
    ] = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            description="Conditions of the deployment: Available, Progressing, Analyzed, Ready, Reconciling and "
            "Stalled.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    api: Annotated[str | None, Field(max_length=32, description="API of the endpoint: Chat, Classify or Reward.")] = (
        None
    )
    url: Annotated[str | None, Field(max_length=512, description="URL of the endpoint in the cluster.")] = None
    served_name: Annotated[
        str | None, Field(max_length=253, description="Model name that clients send in the field 'model' of a request.")
    ] = None
    replicas: Annotated[int | None, Field(ge=0, description="Number of server pods.")] = None
    ready_replicas: Annotated[int | None, Field(ge=0, description="Number of server pods that are ready.")] = None
    selector: Annotated[str | None, Field(max_length=512, description="Label selector of the server pods.")] = None
    network_policy: NetworkPolicyStatus = None
    access: Annotated[AccessStatus | None, Field(description="Whom the server answers.")] = None
    resolved: Annotated[
        ResolvedModel | None,
        Field(description="What spec.model stands for since it was first seen, if it has uri or image."),
    ] = None
    stable: Annotated[Revision | None, Field(description="Revision that is served.")] = None
    candidate: Annotated[Candidate | None, Field(description="Revision that is being rolled out.")] = None
    rejected: Annotated[
        list[Rejected] | None,
        Field(max_length=HISTORY, description="Revisions that were tried and are not served, the newest last."),
    ] = None
    history: Annotated[
        list[Annotated[str, Field(max_length=64)]] | None,
        Field(max_length=2 * HISTORY, description="Revisions that are kept as ControllerRevisions, the newest last."),
    ] = None
    analysis: Annotated[AnalysisStatus | None, Field(description="The last analysis of a candidate.")] = None
    performance: Annotated[
        ServerPerformance | None, Field(description="How fast the revision is that is served, if it was analyzed.")
    ] = None
    downtime_seconds: Annotated[
        int | None,
        Field(ge=0, description="Seconds in which no server answered during the last rollout with Recreate."),
    ] = None
    revisions: Annotated[
        list[RoleStatus] | None,
        Field(
            max_length=8,
            description="Revision and number of the server pods of each role. Requests go to the role stable.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["role"]},
        ),
    ] = None


class ModelDeployment(Model):
    """Serves the result of a FineTuneJob with vLLM, from its claim or from where it was published."""

    spec: Annotated[ModelDeploymentSpec, Field(description="Desired state of the ModelDeployment.")]
    status: Annotated[ModelDeploymentStatus | None, Field(description="Observed state. Written by the operator.")] = (
        None
    )
