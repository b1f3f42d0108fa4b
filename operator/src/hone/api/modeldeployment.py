"""ModelDeployment: a tuned model in; an OpenAI-compatible endpoint out."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.finetunejob_status import ArtifactStatus
from hone.api.meta import (
    Condition,
    Digest,
    EnvVar,
    LocalReference,
    PodSettings,
    ResourceRequirements,
)
from hone.contract.base import Model

KIND = "ModelDeployment"
PLURAL = "modeldeployments"


class Phase(StrEnum):
    """Where a deployment stands, for people; programs read the conditions."""

    PENDING = "Pending"
    WAITING = "Waiting"
    PROGRESSING = "Progressing"
    AVAILABLE = "Available"
    FAILED = "Failed"


class ServedModel(Model):
    """The model to serve."""

    job_ref: Annotated[
        LocalReference,
        Field(description="FineTuneJob of the namespace whose result is served, once it is Complete and Promotable."),
    ]


class Runtime(Model):
    """The vLLM server."""

    image: Annotated[
        str | None, Field(min_length=1, max_length=1024, description="Server image; default: the operator's.")
    ] = None
    args: Annotated[
        list[Annotated[str, Field(max_length=1024)]] | None,
        Field(max_length=64, description="Arguments to add to vLLM's; a later one wins over Hone's own."),
    ] = None
    env: Annotated[list[EnvVar] | None, Field(max_length=64, description="Environment variables to add.")] = None


class ModelDeploymentSpec(Model):
    """What to serve, and how."""

    model: Annotated[ServedModel, Field(description="The model to serve.")]
    served_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[A-Za-z0-9][-._A-Za-z0-9/]*$",
            description="Name that clients give as 'model'; default: this resource's name.",
        ),
    ] = None
    replicas: Annotated[
        int | None,
        Field(ge=0, le=1000, description="Server pods. Leave it out where an autoscaler sets it; default: 1."),
    ] = None
    gpus: Annotated[
        int, Field(ge=0, le=64, description="GPUs per server pod (tensor parallel); 0 serves on the CPU.")
    ] = 1
    gpu_resource: Annotated[str, Field(min_length=1, max_length=253, description="Name of the GPU resource.")] = (
        "nvidia.com/gpu"
    )
    runtime: Annotated[Runtime | None, Field(description="The vLLM server.")] = None
    resources: Annotated[
        ResourceRequirements | None, Field(description="CPU and memory per server pod; GPUs come from gpus.")
    ] = None
    pod: Annotated[PodSettings | None, Field(description="Settings of the server pods.")] = None
    start_deadline_seconds: Annotated[
        int | None,
        Field(
            ge=10,
            le=604_800,
            description="Seconds that a server may take from its start to its first answer; "
            "default: 600, and 20 more for each GB of weights.",
        ),
    ] = None
    drain_seconds: Annotated[
        int, Field(ge=0, le=3600, description="Seconds that a stopping server may take to answer what it has begun.")
    ] = 120


class Revision(Model):
    """A model as it was rolled out. Holds all that rendering its server needs, so that its job may be deleted."""

    revision: Annotated[str, Field(max_length=64, description="Hash of artifact, base and server template.")]
    digest: Annotated[Digest, Field(description="Digest of the artifact.")]
    job: Annotated[str, Field(max_length=253, description="FineTuneJob that made the artifact.")]
    artifact: Annotated[ArtifactStatus, Field(description="The artifact.")]


class ModelDeploymentStatus(Model):
    """What was observed."""

    phase: Annotated[Phase | None, Field(description="Where the deployment stands, for people.")] = None
    observed_generation: Annotated[int | None, Field(ge=0, description="Generation of the spec last acted on.")] = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            description="Observations.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    api: Annotated[
        str | None, Field(max_length=32, description="What the endpoint answers: Chat, Classify or Reward.")
    ] = None
    url: Annotated[str | None, Field(max_length=512, description="Address of the endpoint in the cluster.")] = None
    served_name: Annotated[str | None, Field(max_length=253, description="Name that clients give as 'model'.")] = None
    replicas: Annotated[int | None, Field(ge=0, description="Server pods that exist.")] = None
    ready_replicas: Annotated[int | None, Field(ge=0, description="Server pods that answer.")] = None
    selector: Annotated[str | None, Field(max_length=512, description="Label selector of the server pods.")] = None
    stable: Annotated[Revision | None, Field(description="What is served.")] = None
    candidate: Annotated[Revision | None, Field(description="What is being rolled out.")] = None


class ModelDeployment(Model):
    """Serves the result of a FineTuneJob with vLLM, and follows that job when it is made anew."""

    spec: Annotated[ModelDeploymentSpec, Field(description="What to serve, and how.")]
    status: Annotated[
        ModelDeploymentStatus | None, Field(description="What was observed; written by the operator.")
    ] = None
