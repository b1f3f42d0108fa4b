"""What users may add to vLLM's command line and environment: no code, no files, no other clients.

An argument that is not listed is refused, because each release of vLLM adds some that import what they name, read a
path, or open the server to its clients.
"""

from collections.abc import Mapping

from hone.contract.expressions import ArgumentName, Matches, OneOf, Value
from hone.contract.rules.rule import Rule

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "model": (
        *("allow-deprecated-quantization", "disable-cascade-attn", "disable-sliding-window", "dtype", "enforce-eager"),
        *("logprobs-mode", "max-logprobs", "max-model-len", "override-generation-config", "pooler-config"),
        *("quantization", "return-tokens-as-token-ids", "seed", "use-fp64-gumbel"),
    ),
    "requests": (
        *("chat-template-content-format", "default-chat-template-kwargs", "enable-auto-tool-choice"),
        *("enable-force-include-usage", "enable-prompt-tokens-details", "enable-request-id-headers"),
        *("exclude-tools-when-tool-choice-none", "reasoning-parser", "response-role", "tool-call-parser"),
        *("sse-keep-alive-interval", "tool-strict-level"),
    ),
    "images, sound and video": (
        *("allowed-media-domains", "disable-chunked-mm-input", "interleave-mm-strings", "language-model-only"),
        *("limit-mm-per-prompt", "mm-encoder-tp-mode", "mm-processor-cache-gb", "mm-processor-cache-type"),
        *("skip-mm-profiling", "video-pruning-rate"),
    ),
    "memory": (
        *("block-size", "cpu-offload-gb", "device-memory-utilization", "enable-prefix-caching"),
        *("gpu-memory-utilization", "kv-cache-dtype", "kv-cache-memory-bytes", "kv-offloading-size"),
        *("mamba-block-size", "mamba-cache-dtype", "mamba-cache-mode", "mamba-ssm-cache-dtype"),
        *("num-gpu-blocks-override", "prefix-caching-hash-algo", "swap-space"),
    ),
    "scheduling": (
        *("async-scheduling", "enable-chunked-prefill", "disable-hybrid-kv-cache-manager"),
        *("long-prefill-token-threshold", "max-num-active-seqs", "max-num-batched-tokens", "max-num-partial-prefills"),
        *("max-num-queued-reqs", "max-num-queued-tokens", "max-num-scheduled-tokens", "max-num-seqs"),
        *("scheduling-policy", "stream-interval"),
    ),
    "kernels": (
        *("attention-backend", "cudagraph-capture-sizes", "enable-flashinfer-autotune", "linear-backend"),
        *("mamba-backend", "max-cudagraph-capture-size", "moe-backend", "optimization-level", "performance-mode"),
    ),
    "several GPUs": (
        *("all2all-backend", "cpu-distributed-timeout-seconds", "data-parallel-size", "decode-context-parallel-size"),
        *("disable-custom-all-reduce", "distributed-timeout-seconds", "enable-eplb", "enable-expert-parallel"),
        *("expert-placement-strategy", "max-parallel-loading-workers", "pipeline-parallel-size"),
        *("prefill-context-parallel-size", "tensor-parallel-size"),
    ),
    "adapters": ("fully-sharded-loras", "lora-dtype", "max-cpu-loras", "max-loras"),
    "loading": (
        *("safetensors-load-strategy", "safetensors-prefetch-block-size", "safetensors-prefetch-num-threads"),
        *("use-tqdm-on-load",),
    ),
    "HTTP": (
        *("allow-credentials", "allowed-headers", "allowed-methods", "allowed-origins", "disable-fastapi-docs"),
        *("h11-max-header-count", "h11-max-incomplete-event-size", "root-path"),
    ),
    "logs and metrics": (
        *("aggregate-engine-logging", "cudagraph-metrics", "disable-access-log-for-endpoints", "disable-log-requests"),
        *("disable-log-stats", "disable-uvicorn-access-log", "enable-log-deltas", "enable-log-outputs"),
        *("enable-log-requests", "enable-logging-iteration-details", "enable-mfu-metrics", "kv-cache-metrics"),
        *("kv-cache-metrics-sample", "max-log-len", "show-hidden-metrics-for-version", "uvicorn-log-level"),
    ),
}
"""Names of arguments, without `--`, by what they are about. Their values are numbers, choices of vLLM's own, or JSON of
such; vLLM imports, opens and connects to nothing that they name."""
CHOICES = (
    *("--distributed-executor-backend=mp", "--distributed-executor-backend=uni"),
    *("--generation-config=auto", "--generation-config=vllm"),
)
"""Arguments that could name a module or a path as well: allowed only like this."""

VARIABLES = (
    *("VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_CUDA_COMPATIBILITY_PATH"),
    *("VLLM_ENABLE_CUDA_COMPATIBILITY", "VLLM_HOST_IP", "VLLM_MEDIA_CONNECTOR", "VLLM_PLUGINS", "VLLM_PORT"),
    *("VLLM_SERVER_DEV_MODE", "VLLM_TEST_FORCE_LOAD_FORMAT", "VLLM_USE_MODELSCOPE", "VLLM_USE_RUST_FRONTEND"),
)
"""Variables by which vLLM runs code, opens paths that clients name, or serves its developers' endpoints."""
_PATHS = r"VLLM_LORA_RESOLVER_.*|VLLM_.*_(PATH|FOLDER)"

_ITSELF = Value("")
# Newlines count as well: without `(?s:…)` a text with one would match nothing.
_OPTION, _NUMBER = r"-(?s:.*)", r"-[0-9.]+"


def known_argument(place: str) -> Rule:
    """The rule that an argument is one that Hone knows to be harmless, or a value of the one before it.

    Names must be whole: vLLM takes abbreviations, and `--trust-r` is one.
    """
    names = tuple(f"--{name}" for group in ARGUMENTS.values() for name in group)
    allowed = OneOf(ArgumentName(_ITSELF), names) | OneOf(_ITSELF, CHOICES) | Matches(_ITSELF, _NUMBER)
    return Rule(
        path=place,
        scope=place,
        applies_if=Matches(_ITSELF, _OPTION) & ~allowed,
        message="is not an argument that may be added: it sets what Hone sets, is abbreviated, or may run code, "
        "open files or admit others",
        remedy="Remove it, or write one of the arguments in docs/serving.md in full, as --name=value.",
        spec_only=True,
    )


def closed_server(place: str) -> Rule:
    """The rule that an environment variable does not open the server."""
    name = Value("name")
    return Rule(
        path=f"{place}.name",
        scope=place,
        applies_if=OneOf(name, VARIABLES) | Matches(name, _PATHS),
        message="is a variable by which vLLM may run code, open files or admit others",
        remedy="Remove it.",
        spec_only=True,
    )
