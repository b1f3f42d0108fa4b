"""Tiny models of many families with random weights, made of transformers' own configs: what `dev.architectures` tries.

Each has a tokenizer of bytes with a chat template, two layers or one of each kind that the family mixes, and heads as
wide as vLLM's kernels for CPUs take.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone_trainer.models.loading import build_model

SPECIAL = ("<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>")
PAD, BOS, END = range(3)
VOCABULARY = 320
"""More than the tokenizer has, as in many models; a multiple of 64."""
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HIDDEN, HEADS, HEAD = 128, 4, 32

SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": HEAD,
    "max_position_embeddings": 256,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": END,
    "initializer_range": 0.1,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_VISION = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        config: the name of transformers' class of its config.
        sizes: of the language model, in addition to `SIZES`; None takes one of these away.
        more: what the config has next to the language model's, such as a vision tower; empty: it is a language model.
        kind: dense, experts or multimodal.
    """

    config: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "dense"


_QWEN_VISION = {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": HIDDEN}
_QWEN_ROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
_QWEN_TOKENS = {
    "image_token_id": 300,
    "video_token_id": 301,
    "vision_start_token_id": 302,
    "vision_end_token_id": 303,
}
FAMILIES: Mapping[str, Family] = {
    "Llama": Family("LlamaConfig"),
    "Llama, wide": Family("LlamaConfig", {"hidden_size": 512, "intermediate_size": 1024, "head_dim": 128}),
    "Qwen2": Family("Qwen2Config", {"head_dim": None, "tie_word_embeddings": True}),
    "Qwen3": Family("Qwen3Config"),
    "Mistral": Family("MistralConfig", {"sliding_window": 64}),
    "Phi3": Family("Phi3Config", {"head_dim": None}),
    "Gemma2": Family("Gemma2Config", {"query_pre_attn_scalar": HEAD, "sliding_window": 64}),
    "Gemma3 text": Family("Gemma3TextConfig", {"query_pre_attn_scalar": HEAD, "sliding_window": 64}),
    "Granite": Family("GraniteConfig", {"head_dim": None}),
    "OLMo2": Family("Olmo2Config", {"head_dim": None}),
    "Falcon": Family(
        "FalconConfig",
        {"head_dim": None, "intermediate_size": None, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "GPT-2": Family("GPT2Config", {"head_dim": None, "num_key_value_heads": None, "intermediate_size": None}),
    "SmolLM3": Family("SmolLM3Config", {"head_dim": None}),
    "Mixtral": Family("MixtralConfig", _LOCAL, kind="experts"),
    "Qwen3-MoE": Family("Qwen3MoeConfig", _EXPERTS, kind="experts"),
    "Qwen3-Next": Family(
        "Qwen3NextConfig",
        {
            **_EXPERTS,
            "num_hidden_layers": 4,
            "shared_expert_intermediate_size": 64,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": HEAD,
            "linear_value_head_dim": HEAD,
        },
        kind="experts",
    ),
    "GLM4-MoE": Family(
        "Glm4MoeConfig",
        {
            **_EXPERTS,
            "num_experts": None,
            "n_routed_experts": 4,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        kind="experts",
    ),
    "DeepSeek-V3": Family(
        "DeepseekV3Config",
        {
            "head_dim": None,
            "num_key_value_heads": HEADS,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            # As in the published config; transformers has no such setting, and vLLM's gate has no bias without it.
            "topk_method": "noaux_tc",
            "q_lora_rank": 64,
            "kv_lora_rank": 64,
            "qk_rope_head_dim": HEAD,
            "qk_nope_head_dim": HEAD,
            "v_head_dim": HEAD,
        },
        kind="experts",
    ),
    "gpt-oss": Family("GptOssConfig", {**_LOCAL, "intermediate_size": 128, "sliding_window": 64}, kind="experts"),
    "Granite-MoE": Family("GraniteMoeConfig", {**_LOCAL, "head_dim": None}, kind="experts"),
    "OLMoE": Family("OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": None}, kind="experts"),
    "Gemma3": Family(
        "Gemma3Config",
        {"query_pre_attn_scalar": HEAD, "sliding_window": 64, "model_type": "gemma3_text"},
        {
            "vision_config": {**_VISION, "image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
            "image_token_index": 300,
            "boi_token_index": 301,
            "eoi_token_index": 302,
        },
        kind="multimodal",
    ),
    "Mistral3": Family(
        "Mistral3Config",
        {"model_type": "mistral"},
        {
            "vision_config": {**_VISION, "image_size": 28, "patch_size": 14, "head_dim": HEAD, "model_type": "pixtral"},
            "image_token_index": 300,
        },
        kind="multimodal",
    ),
    "Qwen2.5-VL": Family(
        "Qwen2_5_VLConfig",
        {
            "model_type": "qwen2_5_vl_text",
            "head_dim": None,
            "rope_parameters": _QWEN_ROPE,
        },
        {
            "vision_config": {
                **_QWEN_VISION,
                "model_type": "qwen2_5_vl",
            },
            **_QWEN_TOKENS,
        },
        kind="multimodal",
    ),
    "Qwen3-VL": Family(
        "Qwen3VLConfig",
        {
            "model_type": "qwen3_vl_text",
            "rope_parameters": _QWEN_ROPE,
        },
        {
            "vision_config": {
                **_QWEN_VISION,
                "deepstack_visual_indexes": [0],
                "model_type": "qwen3_vl",
            },
            **_QWEN_TOKENS,
        },
        kind="multimodal",
    ),
}


def make(name: str, directory: Path, seed: int = 0) -> Path:
    """Write a random model of a family with its tokenizer to `directory`."""
    import torch
    import transformers

    config = config_of(FAMILIES[name])
    torch.manual_seed(seed)
    auto = transformers.AutoModelForImageTextToText if FAMILIES[name].more else transformers.AutoModelForCausalLM
    model = build_model(auto, config)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def config_of(family: Family) -> Any:
    """The config of a tiny model."""
    import transformers

    sizes = {key: value for key, value in {**SIZES, **family.sizes}.items() if value is not None}
    config = getattr(transformers, family.config)
    if not family.more:
        return config(**sizes)
    return config(text_config=sizes, tie_word_embeddings=False, **family.more)


def write_tokenizer(directory: Path) -> None:
    """A tokenizer of bytes with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: index for index, word in enumerate((*SPECIAL, *letters))}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[PAD], bos_token=SPECIAL[BOS], eos_token=SPECIAL[END]
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
