"""Shared fixtures: a tiny base model and data, made in seconds, and RunConfigs that point at them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML with generation marks around what the assistant says, the end of its turn included."""

SUBJECTS = ("kettle", "lamp", "chair", "radio", "blender", "keyboard", "tent", "jacket", "drill", "clock")
OPENINGS = ("I bought this", "We got a", "My sister sent me the", "They sold me one", "This is a", "Here is my")
CLAUSES = {
    "positive": ("and it works well.", "and I am keeping it.", "and it was worth the money."),
    "negative": ("but it broke at once.", "and it went back to the shop.", "and I regret it."),
}


def chat_row(i: int) -> dict[str, Any]:
    """A short conversation; no two numbers below 10,000 give the same."""
    answer = ("positive", "negative")[i % 2]
    clause = CLAUSES[answer][i // 2 % 3]
    text = f"{OPENINGS[i // 6 % 6]} {SUBJECTS[i // 36 % 10]} {clause} Order {i}."
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write one line per row: a string as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random two-layer Llama, a byte-level BPE tokenizer and a ChatML template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("model") / "tiny-llama"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [message["content"] for i in range(400) for message in chat_row(i)["messages"]] + [
        "system user assistant\n"
    ]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture
def make_config(tmp_path: Path, tiny_model: Path) -> Callable[..., dict[str, Any]]:
    """Builds a RunConfig's JSON for a run below `tmp_path`: sections given by name are merged into the defaults."""

    def make(rows: Iterable[Any] | None = None, **sections: Any) -> dict[str, Any]:
        train = tmp_path / "data" / "train" / "train.jsonl"
        write_jsonl(train, [chat_row(i) for i in range(300)] if rows is None else rows)
        config: dict[str, Any] = {
            "version": 1,
            "job": {"namespace": "test", "name": "tiny", "uid": "0000-1111"},
            "modelName": "tiny-llama",
            "objective": "SFT",
            "method": {"type": "LoRA"},
            "hyperparameters": {},
            "data": {"train": str(train), "minSamples": 10},
            "topology": {"nodes": 1, "processesPerNode": 1, "gpusPerNode": 0},
            "paths": {
                "model": str(tiny_model),
                "workspace": str(tmp_path / "workspace"),
                "run": str(tmp_path / "workspace" / "test" / "tiny" / "0000-1111"),
                "output": str(tmp_path / "output"),
            },
        }
        for name, value in sections.items():
            config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
        return config

    return make
