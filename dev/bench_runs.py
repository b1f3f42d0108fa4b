"""What the benchmarks of training run on: a model of random weights, conversations of random words, a planned run."""

import json
import random
from pathlib import Path
from typing import Any

WORDS = 4000
_SPECIAL = ["<pad>", "<eos>", "<unk>"]
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' ' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + ' <eos>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


def write_model(directory: Path, hidden: int, layers: int) -> Path:
    """Write a Llama of random weights, and a tokenizer with one token per word, to `directory`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = [*_SPECIAL, "user", "assistant", *(f"w{index}" for index in range(WORDS))]
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>", chat_template=_TEMPLATE
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def write_rows(path: Path, lengths: list[int]) -> Path:
    """Write a conversation of about so many tokens for each length; a fourth of it is the assistant's."""
    chance = random.Random(0)

    def text(count: int) -> str:
        return " ".join(f"w{chance.randrange(WORDS)}" for _ in range(max(1, count)))

    with path.open("w") as file:
        for length in lengths:
            turns = [("user", text(length * 3 // 4 - 2)), ("assistant", text(length // 4 - 1))]
            row = {"messages": [{"role": role, "content": content} for role, content in turns]}
            file.write(json.dumps(row) + "\n")
    return path


def short_lengths(count: int) -> list[int]:
    """Lengths around 60 tokens, spread as those of questions and answers are: half of them between 40 and 80."""
    chance = random.Random(1)
    return [min(240, max(12, round(chance.lognormvariate(3.95, 0.5)))) for _ in range(count)]


def long_lengths(count: int) -> list[int]:
    """Lengths just below 1,024 tokens, where TRL would cut by default."""
    chance = random.Random(2)
    return [chance.randrange(940, 1020) for _ in range(count)]


def plan_run(directory: Path, model: Path, rows: Path, **sections: Any) -> Path:
    """Prepare a run on the CPU by Hone's own first step; returns the path of its RunConfig.

    Args:
        directory: of the run.
        model, rows: what it is to train, and on what.
        sections: of the RunConfig, in addition to those named above.
    """
    from hone.contract.runconfig import RunConfig
    from hone_trainer.prepare import prepare
    from hone_trainer.protocol.logs import quiet_libraries

    quiet_libraries()

    config = RunConfig.from_dict(
        {
            "job": {"namespace": "bench", "name": directory.name, "uid": "0000"},
            "modelName": "random",
            # All rows are learned from: a share so small holds out none.
            "data": {"train": str(rows), "testFraction": 1e-9, "validationFraction": 0.0},
            "paths": {
                "model": str(model),
                "workspace": str(directory / "workspace"),
                "run": str(directory / "run"),
                "output": str(directory / "output"),
            },
            **sections,
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "run.json"
    path.write_text(config.to_json())
    prepare(config)
    return path
