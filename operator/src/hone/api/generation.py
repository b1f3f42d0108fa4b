"""The part of a FineTuneJob about answers that its model generates in training: by what, and with which resources."""

from typing import Annotated

from pydantic import Field

from hone.api.meta import ResourceRequirements
from hone.contract.base import Model
from hone.contract.settings import GenerationEngine


class Generation(Model):
    """How the answers that the model learns from are generated."""

    engine: Annotated[
        GenerationEngine,
        Field(
            description="What generates them. Trainer: the training processes, by transformers. VLLM: a vLLM server in "
            "each trainer pod, which gets the adapter of every step; it needs method {adapter_methods}, and no "
            "zeroStage 3. Auto: VLLM on GPUs where that is possible and fits in memory, else Trainer; "
            "status.plan.reasons says why."
        ),
    ] = GenerationEngine.AUTO
    gpus_per_node: Annotated[
        int | None,
        Field(
            ge=0,
            le=64,
            description="Number of GPUs of the vLLM server in each trainer pod, in addition to compute.gpusPerNode: "
            "Kubernetes gives a GPU to one container. The server divides the model among them, as vLLM's "
            "--tensor-parallel-size. They are requested only if the plan chooses VLLM. Must be 0 if "
            "compute.gpusPerNode is 0, else at least 1. Default: 1, or 0 on the CPU.",
        ),
    ] = None
    resources: Annotated[
        ResourceRequirements | None,
        Field(
            description="CPU and memory of the vLLM server. GPUs are set by gpusPerNode. Default: 4 CPUs and 16Gi per "
            "GPU, at most 128Gi; on the CPU 1 CPU, and as much memory as the plan estimates, at least 3Gi."
        ),
    ] = None
