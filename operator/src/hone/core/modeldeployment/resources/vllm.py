"""vLLM's command line and environment for a served artifact."""

from hone.api.served_model import ServedModel
from hone.contract.report import ARTIFACT_DIR
from hone.core import vllm
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import HTTP_PORT, Server

MODEL_DIRECTORY = "/mnt/model"
CLAIM_DIRECTORY = "/mnt/artifact"
SERVED_DIRECTORY = f"{CLAIM_DIRECTORY}/{ARTIFACT_DIR}"
"""Where the server has the artifact's files. The report next to them, with rows of the test data, it has not."""


API_ARGUMENTS = {"Classify": ["--runner=pooling"], "Reward": ["--runner=pooling"]}
"""vLLM's arguments for APIs other than Chat. The pooling runner answers /classify: with softmax over the classes, or
with the raw score if the model's config has the problem type `regression`, as a reward model has."""


def arguments(server: Server, served: ServedArtifact) -> list[str]:
    """vLLM's arguments; the user's come last and win."""
    artifact, name = served.artifact, server.served_name
    path = directory_of(served.model)
    if is_adapter(served):
        flags = [
            f"--model={base_directory(served)}",
            f"--served-model-name={name}-base",
            "--enable-lora",
            f"--max-lora-rank={vllm.max_lora_rank(artifact.lora_rank or 1)}",
            f"--lora-modules={name}={path}",
            # Without it, vLLM takes the base's tokenizer and chat template.
            f"--tokenizer={path}",
        ]
    else:
        flags = [f"--model={path}", f"--served-model-name={name}"]
    flags += API_ARGUMENTS.get(api_of(served), [])
    flags += ["--host=0.0.0.0", f"--port={HTTP_PORT}"]
    # Without it, running requests are dropped on shutdown.
    flags.append(f"--shutdown-timeout={server.spec.drain_seconds}")
    flags += vllm.placement_arguments(server.spec.gpus)
    return [*flags, *(server.runtime.args or [])]


def environment(server: Server) -> dict[str, str]:
    """Environment variables; the user's may replace them."""
    return vllm.environment(server.spec.gpus, server.spec.resources)


def api_of(served: ServedArtifact) -> str:
    """The API of the server. Artifacts of older releases, which had only Chat, do not name one."""
    return served.artifact.api or "Chat"


def directory_of(model: ServedModel | None) -> str:
    """Where the server has the artifact: below its volume, or where an image has it."""
    image = model.image if model else None
    return f"{SERVED_DIRECTORY}/{image.path}" if image and image.path else SERVED_DIRECTORY


def base_directory(served: ServedArtifact) -> str | None:
    """Where the server has the base model of an adapter; None for a whole model."""
    if not is_adapter(served):
        return None
    path = served.artifact.model_path
    # The root of an image may be a model.
    return f"{MODEL_DIRECTORY}/{path}" if path or not served.model else MODEL_DIRECTORY


def is_adapter(served: ServedArtifact) -> bool:
    """Whether the artifact needs its base model alongside it."""
    return served.artifact.kind == "Adapter"
