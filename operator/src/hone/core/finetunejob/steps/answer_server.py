"""The vLLM server in trainer pods that generates answers: a sidecar, which ends with the launcher.

An init container with restartPolicy Always: the kubelet starts it again by itself, and stops it once the pod's
container has ended, so that neither a crash of it nor its running on decides how the Job ends. It has no startup probe,
since that would delay the ranks, which load their model at the same time and then wait for it. It listens on the
loopback address alone: no NetworkPolicy has to admit or refuse anybody.
"""

from typing import Any

from hone.contract.runconfig import GENERATION_GPU_SHARE, MOUNTS, AnswerServer
from hone.contract.settings import Lora, Precision
from hone.core import vllm
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.models import model_sources, written_models
from hone.core.observed import Object
from hone.core.pods import SIDECAR
from hone.core.podspec import InitContainer, Mount, ScratchMount, env, resources
from hone.core.quantity import as_int

PORT = 8000
ADAPTERS = ScratchMount("adapters", f"{MOUNTS}/adapters", size="20Gi")
"""Where ranks hand over the adapter of each step; of two steps for a moment."""
SHM_GIB = 4
"""Of /dev/shm for each of its GPUs, as for a rank."""
_GIB = 2**30
_LEAST_GIB = 3


def configured(run: Run) -> AnswerServer | None:
    """What the RunConfig says of the server; None where the spec says nothing."""
    generation = run.generation
    if generation is None:
        return None
    return AnswerServer(
        url=f"http://127.0.0.1:{PORT}",
        adapters=ADAPTERS.path,
        engine=generation.engine,
        gpus=run.generation_gpus,
        memory_bytes=_memory_bytes(run),
    )


def sidecar(run: Run) -> InitContainer | None:
    """The server's container; None where the plan has chosen none."""
    if not run.has_answer_server:
        return None
    container: Object = {
        "name": SIDECAR,
        "image": run.settings.server_image if run.generation_gpus else run.settings.server_cpu_image,
        "restartPolicy": "Always",
        "command": list(vllm.COMMAND),
        "args": arguments(run),
        "env": env(_environment(run)),
        "resources": _resources(run),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **({"imagePullPolicy": run.settings.image_pull_policy} if run.settings.image_pull_policy else {}),
    }
    return InitContainer(container, (*_model(run), ADAPTERS))


def arguments(run: Run) -> list[str]:
    """vLLM's arguments. Prompts are token ids, so neither tokenizer nor chat template matters."""
    lora, gpus = run.method.lora or Lora(), run.generation_gpus
    return [
        f"--model={model_sources(run)['model'].path}",
        "--served-model-name=base",
        "--enable-lora",
        f"--max-lora-rank={vllm.max_lora_rank(lora.rank)}",
        # Those of the distribution that answers are drawn from: the loss compares them with the trainer's.
        "--logprobs-mode=processed_logprobs",
        f"--max-model-len={_longest(run)}",
        "--host=127.0.0.1",
        f"--port={PORT}",
        # A line for each answer otherwise.
        "--uvicorn-log-level=warning",
        *vllm.placement_arguments(gpus),
        *(["--dtype=float16"] if gpus and run.stored_plan.get("computeDtype") == Precision.FLOAT16 else []),
        # On the CPU, vLLM 0.32 ends where a prompt with a seed is read in two parts.
        f"--gpu-memory-utilization={GENERATION_GPU_SHARE}" if gpus else "--no-enable-chunked-prefill",
    ]


def _environment(run: Run) -> dict[str, str]:
    generation, gpus = run.generation, run.generation_gpus
    return {
        **vllm.environment(gpus, generation.resources if generation else None),
        # vLLM compiles what counts the ranks of log-probabilities, for which the image for CPUs has no compiler.
        **({} if gpus else {"TORCH_COMPILE_DISABLE": "1"}),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_HOST_IP": "127.0.0.1",
    }


def _longest(run: Run) -> int:
    """Most tokens of prompt and answer: validation rows may be longer than those of the plan, which are trained on."""
    return max(int(run.stored_plan.get("sequenceLength") or 0), run.hyperparameters.sequence_length or 0)


def _model(run: Run) -> tuple[Mount, ...]:
    """The base model as the ranks read it: where it lies, or where prepare has written it."""
    source = model_sources(run)["model"]
    if not source.materialize:
        return source.mounts
    return tuple(written_models(run))


def _resources(run: Run) -> dict[str, Any]:
    requested = run.generation.resources if run.generation else None
    if gpus := run.generation_gpus:
        defaults, limit = {"cpu": str(4 * gpus), "memory": f"{16 * gpus}Gi"}, f"{128 * gpus}Gi"
    else:
        planned = int(run.stored_plan.get("generationMemoryBytes") or 0)
        memory = max(_LEAST_GIB, -(-planned // _GIB))
        defaults, limit = {"cpu": "1", "memory": f"{memory}Gi"}, f"{2 * memory}Gi"
    return resources(requested, defaults, gpus, run.compute.gpu_resource, limit)


def _memory_bytes(run: Run) -> int | None:
    """Bytes of one of its GPUs, or its limit on the CPU; None: unknown, or as much as the plan estimates."""
    if run.generation_gpus:
        return run.gpu_memory_bytes
    requested = run.generation.resources if run.generation else None
    limits = (requested.limits if requested else None) or {}
    return as_int(limits["memory"]) if "memory" in limits else None
