"""What every vLLM server of ours is started with, whether it serves an artifact or answers in training."""

from hone.api.meta import ResourceRequirements
from hone.core.quantity import as_int

COMMAND = ("python3", "-m", "vllm.entrypoints.openai.api_server")

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


def max_lora_rank(rank: int) -> int:
    """The value of --max-lora-rank for an adapter of a rank."""
    return next((known for known in LORA_RANKS if known >= rank), LORA_RANKS[-1])


def environment(gpus: int, requested: ResourceRequirements | None) -> dict[str, str]:
    """Environment variables of a server.

    Args:
        gpus: its GPUs; 0: it runs on the CPU.
        requested: the resources that its spec sets.
    """
    if gpus:
        return dict(ENVIRONMENT)
    return {**ENVIRONMENT, **CPU_ENVIRONMENT, "OMP_NUM_THREADS": str(_threads(requested))}


def placement_arguments(gpus: int) -> list[str]:
    """Arguments for so many GPUs, or for the CPU."""
    if gpus == 0:
        return ["--dtype=float32", "--enforce-eager"]
    return [f"--tensor-parallel-size={gpus}"] if gpus > 1 else []


def _threads(requested: ResourceRequirements | None) -> int:
    """Threads of a CPU server: as many as its CPUs. More would busy-wait at barriers and slow each other down."""
    for values in (requested.limits, requested.requests) if requested else ():
        if values and "cpu" in values:
            return max(1, as_int(values["cpu"]))
    return 1
