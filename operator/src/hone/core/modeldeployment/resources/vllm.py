"""vLLM's command line and environment for a served artifact."""

from hone.contract.report import ARTIFACT_DIR
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import HTTP_PORT, Server
from hone.core.quantity import as_int

MODEL_DIRECTORY = "/mnt/model"
CLAIM_DIRECTORY = "/mnt/artifact"
SERVED_DIRECTORY = f"{CLAIM_DIRECTORY}/{ARTIFACT_DIR}"
"""Where the server has the artifact's files. The report next to them, with rows of the test data, it has not."""
COMMAND = ["python3", "-m", "vllm.entrypoints.openai.api_server"]

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that --max-lora-rank takes."""

# Under a random user id vLLM fails at import without a home and a user; all caches go to the pod's scratch space.
ENVIRONMENT = {
    "HOME": "/tmp",
    "USER": "hone",
    "XDG_CACHE_HOME": "/tmp/.cache",
    "HF_HOME": "/tmp/.cache/huggingface",
    "VLLM_CACHE_ROOT": "/tmp/.cache/vllm",
    "TRITON_CACHE_DIR": "/tmp/.cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/.cache/inductor",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


API_ARGUMENTS = {"Classify": ["--runner=pooling"], "Reward": ["--runner=pooling"]}
"""vLLM's arguments for APIs other than Chat. The pooling runner answers /classify: with softmax over the classes, or
with the raw score if the model's config has the problem type `regression`, as a reward model has."""


def arguments(server: Server, served: ServedArtifact) -> list[str]:
    """vLLM's arguments; the user's come last and win."""
    artifact, name = served.artifact, server.served_name
    path = SERVED_DIRECTORY
    if is_adapter(served):
        rank = next((known for known in LORA_RANKS if known >= (artifact.lora_rank or 1)), LORA_RANKS[-1])
        flags = [
            f"--model={base_directory(served)}",
            f"--served-model-name={name}-base",
            "--enable-lora",
            f"--max-lora-rank={rank}",
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
    if server.spec.gpus == 0:
        flags += ["--dtype=float32", "--enforce-eager"]
    if server.spec.gpus > 1:
        flags.append(f"--tensor-parallel-size={server.spec.gpus}")
    return [*flags, *(server.runtime.args or [])]


def environment(server: Server) -> dict[str, str]:
    """Environment variables; the user's may replace them."""
    if server.spec.gpus:
        return dict(ENVIRONMENT)
    return {**ENVIRONMENT, **CPU_ENVIRONMENT, "OMP_NUM_THREADS": str(_threads(server))}


def api_of(served: ServedArtifact) -> str:
    """The API of the server. Artifacts of older releases, which had only Chat, do not name one."""
    return served.artifact.api or "Chat"


def base_directory(served: ServedArtifact) -> str | None:
    """Where the server has the base model of an adapter; None for a whole model."""
    return f"{MODEL_DIRECTORY}/{served.artifact.model_path}" if is_adapter(served) else None


def is_adapter(served: ServedArtifact) -> bool:
    """Whether the artifact needs its base model alongside it."""
    return served.artifact.kind == "Adapter"


def _threads(server: Server) -> int:
    """Threads of a CPU server: as many as its CPUs. More would busy-wait at barriers and slow each other down."""
    requested = server.spec.resources
    for values in (requested.limits, requested.requests) if requested else ():
        if values and "cpu" in values:
            return max(1, as_int(values["cpu"]))
    return 1
