"""What is served is what was trained: a row begins with the tokens that a server asks with, and continues with loss."""

import copy
from typing import Any

import pytest
from test_data_templates import (
    ADDS_EMPTY_THOUGHTS,
    CHATML,
    DROPS_THOUGHTS,
    GEMMA,
    LLAMA_2,
    LLAMA_3,
    OF_IMAGES,
    OPENS_THOUGHTS,
    PLAIN,
    TEMPLATES_OF_MODELS,
)

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.answer import CHANGES_PROMPT, HIDES_THOUGHTS
from hone_trainer.data.classes import Classes
from hone_trainer.data.conversation import HIDES_REASONING, HIDES_ROLE
from hone_trainer.data.encode import Encoder
from hone_trainer.data.formats import to_sample
from hone_trainer.data.pairs import PairEncoder
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.data.prompts import PromptEncoder
from hone_trainer.data.rated import RatedEncoder
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import RowFault

VICUNA = (
    r"{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}"
    r"{% else %}{{ 'ASSISTANT: ' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    r"{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)
MISTRAL = (
    r"{{ '<s>' }}{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] + '\n\n' %}"
    r"{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    r"{% for m in rest %}{% if m['role'] == 'user' %}"
    r"{{ '[INST] ' + (said if loop.first else '') + m['content'] + '[/INST]' }}"
    r"{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)
LATE_SYSTEM = MISTRAL.replace("loop.first", "loop.last")
PHI = (
    r"{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
DEEPSEEK = (
    r"{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{% else %}"
    r"{{ '<|Assistant|>' + m['content'].split('</think>')[-1] + '<|im_end|>' }}{% endif %}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
CLOSES_THOUGHTS = DEEPSEEK.replace(r"<think>\n", "</think>")
HARMONY = (
    r"{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|start|>assistant' }}"
    r"{% if m.thinking and loop.last %}"
    r"{{ '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant' }}{% endif %}"
    r"{{ '<|channel|>final<|message|>' + m['content'] + '<|im_end|>' }}"
    r"{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
QWEN_25 = (
    r"{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    + CHATML
)
MARKED = (
    r"{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}"
    r"{{ 'Bot:\n' + m['content'] + '<|im_end|>' }}"
    r"{% endgeneration %}{% else %}{{ m['role'] + ': ' + m['content'] }}{% endif %}{{ '\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ 'Bot:\n' }}{% endif %}"
)
OWN = {
    "ChatML": CHATML,
    "Llama 2": LLAMA_2,
    "Llama 3": LLAMA_3,
    "Gemma": GEMMA,
    "Vicuna": VICUNA,
    "Mistral": MISTRAL,
    "Phi": PHI,
    "DeepSeek": DEEPSEEK,
    "gpt-oss": HARMONY,
    "Qwen 2.5": QWEN_25,
    "marks with the header": MARKED,
    "plain text": PLAIN,
    "drops earlier thoughts": DROPS_THOUGHTS,
    "drops and opens thoughts": OPENS_THOUGHTS,
    "adds empty thoughts": ADDS_EMPTY_THOUGHTS,
}
TEMPLATES = {**OWN, **{path.stem: path.read_text(encoding="utf-8") for path in TEMPLATES_OF_MODELS}}
THOUGHT = "<think>\nIt may be\nso.\n</think>\n\n"


def with_template(tokenizer: Any, template: str) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = template
    return tokenizer


def chat(*contents: str, **keys: str) -> Sample:
    roles = ("user", "assistant") * len(contents)
    turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return to_sample({"messages": [*turns[:-1], {**turns[-1], **keys}]}, DataFormat.MESSAGES)


def parts(encoder: Encoder, sample: Sample) -> list[str]:
    return [part.split("»")[0] for part in encoder.decode(encoder.encode(sample), 10_000).split("«")[1:]]


SAMPLES = {
    "one word": chat("Is it good?", "positive"),
    "several turns": chat("The kettle?", "It works.", "And the lamp?", "broken"),
    "thoughts": chat("Is it good?", f"{THOUGHT}positive"),
    "thoughts in several turns": chat("The kettle?", f"{THOUGHT}It works.", "And?", f"{THOUGHT}broken"),
}


@pytest.mark.parametrize("train_on", TrainOn)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_begins_with_what_a_server_asks_and_goes_on_with_loss_or_it_is_said(
    tiny_tokenizer: Any, name: str, train_on: TrainOn
) -> None:
    encoder = Encoder(with_template(tiny_tokenizer, TEMPLATES[name]), train_on, chat=True)
    for sample in SAMPLES.values():
        before = len(encoder.warnings())
        try:
            encoded = encoder.encode(sample)
        except RowFault:
            assert name in OF_IMAGES or "</think>" in sample.messages[-1]["content"]
            continue
        ids, _ = encoder.prompt(sample)
        served = encoded.input_ids[: len(ids)] == ids and encoded.labels[len(ids)] != IGNORE_INDEX
        warned = [sentence for sentence in encoder.warnings() if "server" in sentence]
        assert served or warned, encoder.decode(encoded, 10_000)
        assert before <= len(encoder.warnings())


@pytest.mark.parametrize("name", sorted({*TEMPLATES} - OF_IMAGES))
def test_compared_and_rated_answers_and_prompts_begin_with_what_a_server_asks(tiny_tokenizer: Any, name: str) -> None:
    tokenizer = with_template(tiny_tokenizer, TEMPLATES[name])
    prompt, answer = [{"role": "user", "content": "Is it good?"}], [{"role": "assistant", "content": "Yes."}]
    pair = {"prompt": prompt, "chosen": answer, "rejected": [{"role": "assistant", "content": "No."}]}
    rated = {"prompt": prompt, "completion": answer, "label": True}
    for encoder, row, format in (
        (PairEncoder(tokenizer, chat=True), pair, DataFormat.PREFERENCE),
        (RatedEncoder(tokenizer, True, Classes(("false", "true"), (1, 1))), rated, DataFormat.UNPAIRED_PREFERENCE),
        (PromptEncoder(tokenizer, True, room=8, limit=9999, train_on="All"), {"prompt": prompt}, DataFormat.PROMPT),
    ):
        sample = to_sample(row, format)
        ids, text = encoder.prompt(sample)
        encoded = encoder.encode(sample).prompt_ids
        assert encoded == ids or (text.rstrip().endswith("<think>") and ids[: len(encoded)] == encoded)


@pytest.mark.parametrize("name", sorted({*TEMPLATES} - OF_IMAGES))
def test_the_template_of_a_model_is_warned_of_only_if_it_opens_thoughts_or_changes_turns(
    tiny_tokenizer: Any, name: str
) -> None:
    encoder = Encoder(with_template(tiny_tokenizer, TEMPLATES[name]), TrainOn.ASSISTANT, chat=True)
    encoder.encode(SAMPLES["one word"])
    opens = encoder.prompt(SAMPLES["one word"])[1].rstrip().endswith("<think>")
    assert bool(encoder.warnings()) <= opens


def test_the_word_after_a_prompt_that_ends_in_a_space_is_learned_after_the_tokens_of_that_prompt(
    tiny_tokenizer: Any,
) -> None:
    tokenizer = with_template(tiny_tokenizer, VICUNA)
    word = max((token for token in tokenizer.get_vocab() if token[0] == "Ġ" and token[1:].isalpha()), key=len)[1:]
    encoder = Encoder(tokenizer, TrainOn.ASSISTANT, chat=True)
    sample = chat("Is it good?", word)
    encoded = encoder.encode(sample)
    ids, text = encoder.prompt(sample)
    joined = tokenizer(text + word, add_special_tokens=False)["input_ids"]
    assert joined[: len(ids)] != ids, "the case must be one in which the tokens join"
    assert encoder.decode(encoded, 1000) == f"USER: Is it good? ASSISTANT: «{word}<|im_end|>»"
    assert encoded.input_ids[: len(ids)] == ids


def test_both_answers_of_a_pair_follow_the_tokens_of_the_prompt(tiny_tokenizer: Any) -> None:
    row = {"prompt": [{"role": "user", "content": "Is it good?"}]}
    row |= {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    encoder = PairEncoder(with_template(tiny_tokenizer, VICUNA), chat=True)
    sample = to_sample(row, DataFormat.PREFERENCE)
    encoded = encoder.encode(sample)
    assert encoder.decode(encoded, 1000) == (
        "USER: Is it good? ASSISTANT: «chosen<|im_end|>» rather than «rejected<|im_end|>»"
    )
    text = encoder.prompt(sample)[1]
    assert encoded.prompt_ids == with_template(tiny_tokenizer, VICUNA)(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("template", "learned"),
    [
        pytest.param(DEEPSEEK, "It may be\nso.\n</think>\n\npositive<|im_end|>", id="opened by the prompt"),
        pytest.param(
            DEEPSEEK.replace(r"<think>\n", ""), f"{THOUGHT}positive<|im_end|>", id="to be opened by the model"
        ),
    ],
)
def test_thoughts_that_the_template_drops_are_learned_as_the_model_is_to_write_them(
    tiny_tokenizer: Any, template: str, learned: str
) -> None:
    for train_on in (TrainOn.ASSISTANT, TrainOn.COMPLETION):
        encoder = Encoder(with_template(tiny_tokenizer, template), train_on, chat=True)
        assert parts(encoder, SAMPLES["thoughts"]) == [learned]
        assert not encoder.warnings()
    encoder = Encoder(with_template(tiny_tokenizer, template), TrainOn.ASSISTANT, chat=True)
    assert parts(encoder, SAMPLES["thoughts in several turns"]) == [learned.replace("positive", "broken")]
    assert "1 answers carry no loss" in encoder.warnings()[0], "the first answer, whose thoughts are dropped"


def test_thoughts_after_a_prompt_that_closes_them_are_a_fault(tiny_tokenizer: Any) -> None:
    encoder = Encoder(with_template(tiny_tokenizer, CLOSES_THOUGHTS), TrainOn.ASSISTANT, chat=True)
    with pytest.raises(RowFault, match="drops the reasoning") as fault:
        encoder.encode(SAMPLES["thoughts"])
    assert str(fault.value) == HIDES_THOUGHTS


def test_an_answer_without_the_thoughts_that_a_server_opens_is_counted(tiny_tokenizer: Any) -> None:
    encoder = Encoder(with_template(tiny_tokenizer, DEEPSEEK), TrainOn.ASSISTANT, chat=True)
    encoder.encode(SAMPLES["one word"])
    encoder.encode(SAMPLES["one word"])
    (sentence,) = encoder.warnings()
    assert sentence.startswith("In 2 rows the answer has no thoughts")
    assert "chat_template" in sentence


def test_earlier_turns_that_training_shows_otherwise_are_counted(tiny_tokenizer: Any) -> None:
    from trl.chat_template_utils import qwen3_chat_template

    encoder = Encoder(with_template(tiny_tokenizer, qwen3_chat_template), TrainOn.ASSISTANT, chat=True)
    encoder.encode(SAMPLES["one word"])
    assert not encoder.warnings()
    encoder.encode(SAMPLES["several turns"])
    (sentence,) = encoder.warnings()
    assert sentence.startswith("In 1 rows the text before the last answer is not what a server asks with")


@pytest.mark.parametrize("template", [CHATML, QWEN_25, GEMMA.replace("raise_exception('Roles must alternate!')", "''")])
def test_a_conversation_that_begins_with_the_answer_carries_loss_on_the_answer_alone(
    tiny_tokenizer: Any, template: str
) -> None:
    encoder = Encoder(with_template(tiny_tokenizer, template), TrainOn.ASSISTANT, chat=True)
    greeting = {"role": "assistant", "content": "Hi!"}
    sample = to_sample({"messages": [greeting, *SAMPLES["one word"].messages]}, DataFormat.MESSAGES)
    first, last = parts(encoder, sample)
    assert first.startswith("Hi!<")
    assert last.startswith("positive<")
    assert "assistant" not in first + last


def test_marks_cover_neither_the_header_nor_what_a_tokenizer_drops(tiny_tokenizer: Any) -> None:
    encoder = Encoder(with_template(tiny_tokenizer, MARKED), TrainOn.ASSISTANT, chat=True)
    assert parts(encoder, SAMPLES["several turns"]) == ["It works.<|im_end|>", "broken<|im_end|>"]


def test_marks_end_before_the_users_words_with_a_tokenizer_that_drops_white_space() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(["user: yes no my order broke"], trainers.WordLevelTrainer(special_tokens=["?"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    tokenizer.chat_template = (
        r"{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '\n' }}"
        r"{% endgeneration %}{% else %}{{ 'user: ' + m['content'] + '\n' }}{% endif %}{% endfor %}"
    )
    encoder = Encoder(tokenizer, TrainOn.ASSISTANT, chat=True)
    assert parts(encoder, chat("order", "yes", "my order broke", "no")) == ["yes", "no"]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_a_turn_of_weight_0_carries_no_loss(tiny_tokenizer: Any, template: str) -> None:
    turns = [{**turn, "weight": int(i != 1)} for i, turn in enumerate(SAMPLES["several turns"].messages)]
    turns = [turn if turn["role"] == "assistant" else {**turn, "weight": None} for turn in turns]
    sample = to_sample({"messages": turns}, DataFormat.MESSAGES)
    for train_on in (TrainOn.ASSISTANT, TrainOn.COMPLETION):
        encoder = Encoder(with_template(tiny_tokenizer, template), train_on, chat=True)
        assert parts(encoder, sample) == ["broken<|im_end|>"]
    with pytest.raises(RowFault, match="trainOn is All"):
        Encoder(with_template(tiny_tokenizer, template), TrainOn.ALL, chat=True).encode(sample)


@pytest.mark.parametrize("train_on", TrainOn)
def test_a_system_turn_that_the_template_leaves_out_is_a_fault_that_names_the_role(
    tiny_tokenizer: Any, train_on: TrainOn
) -> None:
    system = {"role": "system", "content": "Be kind."}
    sample = to_sample({"messages": [system, *SAMPLES["one word"].messages]}, DataFormat.MESSAGES)
    silent = r"{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] + '\n' }}{% endif %}{% endfor %}"
    for template in (LATE_SYSTEM, silent):
        encoder = Encoder(with_template(tiny_tokenizer, template), train_on, chat=True)
        with pytest.raises(RowFault) as fault:
            encoder.encode(sample)
        assert str(fault.value) == f"{HIDES_ROLE} system"
    shown = Encoder(with_template(tiny_tokenizer, MISTRAL), train_on, chat=True)
    assert "Be kind." in shown.decode(shown.encode(sample), 1000)


@pytest.mark.parametrize("train_on", TrainOn)
def test_a_prompt_that_changes_once_an_answer_follows_is_a_fault(tiny_tokenizer: Any, train_on: TrainOn) -> None:
    encoder = Encoder(with_template(tiny_tokenizer, "{{ messages | length }}" + CHATML), train_on, chat=True)
    with pytest.raises(RowFault) as fault:
        encoder.encode(SAMPLES["one word"])
    assert str(fault.value) == CHANGES_PROMPT


def test_a_reasoning_of_its_own_is_learned_where_the_template_shows_it_and_else_a_fault(tiny_tokenizer: Any) -> None:
    sample = chat("Is it good?", "positive", reasoning_content="It may be so.")
    encoder = Encoder(with_template(tiny_tokenizer, HARMONY), TrainOn.ASSISTANT, chat=True)
    (learned,) = parts(encoder, sample)
    assert learned == (
        "<|channel|>analysis<|message|>It may be so.<|end|><|start|>assistant"
        "<|channel|>final<|message|>positive<|im_end|>"
    )
    with pytest.raises(RowFault) as fault:
        Encoder(with_template(tiny_tokenizer, CHATML), TrainOn.ASSISTANT, chat=True).encode(sample)
    assert str(fault.value) == HIDES_REASONING


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[0]['content'] // 2 }}", "rejects the conversation"),
        ("{{ messages[9]['content']['x'] }}", "rejects the conversation"),
        ("{{ 1 / 0 }}", "rejects the conversation: it fails with ZeroDivisionError"),
        ("{{ messages[0]['content'].index('nowhere') }}", "rejects the conversation: it fails with ValueError"),
    ],
)
def test_whatever_a_template_fails_with_is_a_fault_of_the_row(tiny_tokenizer: Any, template: str, words: str) -> None:
    with pytest.raises(RowFault, match=words):
        Encoder(with_template(tiny_tokenizer, template), TrainOn.ALL, chat=True).encode(SAMPLES["one word"])
