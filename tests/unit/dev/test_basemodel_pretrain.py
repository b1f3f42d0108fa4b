"""Pretraining for a few steps: deterministic, readable by transformers, with a chat template that marks the answers."""

import hashlib
import itertools
from pathlib import Path

import pytest

from dev.basemodel.corpus import TEXT, documents

pytestmark = pytest.mark.train

STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dev.basemodel.pretrain import pretrain

    folder = tmp_path_factory.mktemp("model")
    lines: list[str] = []
    pretrain(folder, lines.append, steps=STEPS)
    assert any(f"step {STEPS}/{STEPS}" in line for line in lines)
    return folder


def test_the_same_code_makes_the_same_files(folder: Path, tmp_path: Path) -> None:
    from dev.basemodel.pretrain import pretrain

    pretrain(tmp_path, lambda line: None, steps=STEPS)
    first, second = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}
        for built in (folder, tmp_path)
    )
    assert first == second
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= set(first)


def test_the_chat_template_writes_what_pretraining_showed_and_marks_the_answers(folder: Path) -> None:
    from transformers import AutoTokenizer

    from dev.basemodel.tokenizer import render

    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversations = [document for document in itertools.islice(documents(9), 200) if document[0][0] != TEXT]
    for conversation in conversations:
        pieces = render(conversation)
        messages = [{"role": role, "content": content} for role, content in conversation]
        assert tokenizer.apply_chat_template(messages, tokenize=False) == "".join(text for text, _ in pieces)
        encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        cut = [(tokenizer(text, add_special_tokens=False)["input_ids"], answered) for text, answered in pieces]
        assert encoded["input_ids"] == [token for tokens, _ in cut for token in tokens]
        assert encoded["assistant_masks"] == [int(answered) for tokens, answered in cut for _ in tokens]


def test_tokens_round_trip_and_labels_are_single_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("A lamp, isn't it?\n", "naïve 中 🙂\ttab  two spaces", "<html>&amp;"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert [len(tokenizer(label)["input_ids"]) for label in ("positive", "negative")] == [1, 1]


def test_generation_stops_at_the_end_of_a_turn(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id == end
    assert tokenizer.pad_token_id == model.config.pad_token_id != end
    assert model.config.tie_word_embeddings
    assert model.config.head_dim == 64
