"""Shared fixtures: a tiny base model and data, made in seconds, and RunConfigs that point at them."""

import functools
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import tiny
from launchers import Launcher
from rows import CHAT_TEMPLATE, chat_row, write_jsonl


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none. `make gpu` fails before that comes to pass."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU: torch.cuda.is_available() is False")


@pytest.fixture(scope="session", autouse=True)
def package_metadata() -> Iterator[None]:
    """Each package's metadata are parsed once: accelerate asks for them at every forward pass of a tiny model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "metadata", functools.cache(metadata.metadata))
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model and data for the runs of a file, and this process as their only rank."""
    root = tmp_path_factory.mktemp("shared")
    tiny.make_run(root)
    with tiny.only_rank():
        yield root


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


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_model: Path) -> Any:
    """The tiny model's tokenizer. Do not change it: copy it first."""
    from hone_trainer.models.facts import load_tokenizer

    return load_tokenizer(tiny_model)


@pytest.fixture
def start() -> Iterator[Callable[..., Launcher]]:
    """Starts launchers, with `Launcher`'s arguments; they are ended with the test, however it ends."""
    started: list[Launcher] = []

    def start_one(*arguments: Any, **options: Any) -> Launcher:
        started.append(Launcher(*arguments, **options))
        return started[-1]

    yield start_one
    for launcher in started:
        launcher.kill()
        launcher.process.wait()
