"""Families for which vLLM serves whole models only: their adapters are merged before they are exported."""

WITHOUT_ADAPTERS = frozenset(
    {
        *("aria", "bloom", "cohere2_moe", "cohere2_vision", "dbrx", "deepseek_v32", "deepseek_v4", "falcon"),
        *("falcon_mamba", "gemma3n", "gemma3n_text", "gpt2", "gptj", "hrm_text", "kimi_linear"),
        *("llava_onevision", "mamba", "mamba2", "mimo_v2_flash", "minimax_m3_vl", "paddleocr_vl", "stablelm"),
        *("step3p7", "zamba2"),
    }
)
"""By transformers' name: those whose class in vLLM's registry is not a `SupportsLoRA`
(vllm/model_executor/models/registry.py, 0.32). Families without a class of their own are run by vLLM's classes for
transformers' models, which serve adapters."""


def serves_adapters(model_type: str) -> bool:
    """Whether vLLM serves an adapter of a model of this family, by transformers' name."""
    return model_type not in WITHOUT_ADAPTERS
