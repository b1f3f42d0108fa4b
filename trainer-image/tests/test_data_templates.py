"""Which tokens carry loss under chat templates of every style: exact to the character, without generation marks."""

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.encode import Encoder
from hone_trainer.data.formats import to_sample
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import RowFault

CHATML = (
    r"{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    r"{% for m in messages %}{% if m['role'] == 'user' %}{{ '<s>[INST] ' + m['content'] | trim + ' [/INST]' }}"
    r"{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' </s>' }}"
    r"{% else %}{{ raise_exception('Only user and assistant!') }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    r"{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
    r"m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    r"{{ '<bos>' }}{% for m in messages %}"
    r"{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate!') }}{% endif %}"
    r"{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    r"{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PLAIN = (
    r"{% for m in messages %}{{ m['role'] | capitalize + ': ' + m['content'] + '\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_LAST_ASKED = (
    r"{% set ns = namespace(asked=0) %}"
    r"{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
)
DROPS_THOUGHTS = (
    _LAST_ASKED + r"{% for m in messages %}{% set text = m['content'] %}"
    r"{% if loop.index0 < ns.asked %}{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    r"{{ '<|im_start|>' + m['role'] + '\n' + text + '<|im_end|>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ADDS_EMPTY_THOUGHTS = (
    _LAST_ASKED + r"{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    r"{% if loop.index0 > ns.asked and '</think>' not in m['content'] %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    r"{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OPENS_THOUGHTS = (
    r"{% for m in messages %}{% set text = m['content'].split('</think>')[-1].lstrip('\n') %}"
    r"{{ '<|im_start|>' + m['role'] + '\n' + text + '<|im_end|>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)

IN_PARTS = (
    r"{% for m in messages %}{{ m['role'] + ': ' }}{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    r"{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

CHATML_HEAD, CHATML_USER = "<|im_start|>assistant\n", "<|im_start|>user\n{}<|im_end|>\n"
STYLES = {
    # template, user's turn, what comes before and after an answer that is not part of it, an answer
    "ChatML": (CHATML, "", CHATML_USER, CHATML_HEAD, "{}<|im_end|>", "\n"),
    "Llama 2": (LLAMA_2, "", "<s>[INST] {} [/INST]", "", " {} </s>", ""),
    "Llama 3": (
        LLAMA_3,
        "<|begin_of_text|>",
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "{}<|eot_id|>",
        "",
    ),
    "Gemma": (
        GEMMA,
        "<bos>",
        "<start_of_turn>user\n{}<end_of_turn>\n",
        "<start_of_turn>model\n",
        "{}<end_of_turn>",
        "\n",
    ),
    "plain text": (PLAIN, "", "User: {}\n", "Assistant:", " {}", "\n"),
    "one that drops thoughts": (DROPS_THOUGHTS, "", CHATML_USER, CHATML_HEAD, "{}<|im_end|>", "\n"),
    "one that opens thoughts": (OPENS_THOUGHTS, "", CHATML_USER, CHATML_HEAD, "{}<|im_end|>", "\n"),
}
_TRL = Path(str(find_spec("trl").origin)).parent
TEMPLATES_OF_MODELS = [
    path for path in sorted((_TRL / "chat_templates").glob("*.jinja")) if not path.stem.endswith("_training")
]
OF_IMAGES = {"idefics3", "llava_next", "smolvlm"}
QUESTIONS, ANSWERS = ("The kettle?", "And the lamp?"), ("It works.", "It broke: 坏了.")


def sample(*answers: str) -> Sample:
    turns = [
        {"role": role, "content": text}
        for question, answer in zip(QUESTIONS, answers, strict=True)
        for role, text in (("user", question), ("assistant", answer))
    ]
    return to_sample({"messages": turns}, DataFormat.MESSAGES)


def shown(tokenizer: Any, template: str, train_on: TrainOn, row: Sample) -> str:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    encoder = Encoder(tokenizer, train_on, chat=True)
    return encoder.decode(encoder.encode(row), 10_000)


@pytest.mark.parametrize("train_on", [TrainOn.ASSISTANT, TrainOn.COMPLETION, TrainOn.ALL])
@pytest.mark.parametrize("style", STYLES)
def test_the_wanted_answers_carry_loss_with_the_token_that_ends_them(
    tiny_tokenizer: Any, style: str, train_on: TrainOn
) -> None:
    template, start, user, head, answer, end = STYLES[style]
    first, last = (answer.format(text) for text in ANSWERS)
    if train_on is not TrainOn.ALL:
        last = f"«{last}»"
    if train_on is TrainOn.ASSISTANT:
        first = f"«{first}»"
    questions = [user.format(text) for text in QUESTIONS]
    rendered = f"{start}{questions[0]}{head}{first}{end}{questions[1]}{head}{last}{end}"
    expected = f"«{rendered}»" if train_on is TrainOn.ALL else rendered
    assert shown(tiny_tokenizer, template, train_on, sample(*ANSWERS)) == expected


@pytest.mark.parametrize("train_on", [TrainOn.ASSISTANT, TrainOn.COMPLETION])
def test_an_answer_whose_thoughts_the_template_drops_later_carries_no_loss(
    tiny_tokenizer: Any, train_on: TrainOn
) -> None:
    thought = [f"<think>\nhm\n</think>\n{answer}" for answer in ANSWERS]
    text = shown(tiny_tokenizer, DROPS_THOUGHTS, train_on, sample(*thought))
    assert text.count("«") == 1
    assert f"{CHATML_HEAD}{ANSWERS[0]}<|im_end|>\n" in text
    assert text.endswith(f"{CHATML_HEAD}«{thought[1]}<|im_end|>»\n")


@pytest.mark.parametrize("path", TEMPLATES_OF_MODELS, ids=lambda path: path.stem)
def test_the_templates_of_known_models_mark_answers_and_nothing_that_is_asked(tiny_tokenizer: Any, path: Path) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.bos_token = "<|endoftext|>"
    template = path.read_text(encoding="utf-8")
    for train_on, answers in ((TrainOn.ASSISTANT, ANSWERS), (TrainOn.COMPLETION, ANSWERS[1:])):
        if path.stem in OF_IMAGES:
            with pytest.raises(RowFault):
                shown(tokenizer, template, train_on, sample(*ANSWERS))
            continue
        marked = [part.split("»")[0] for part in shown(tokenizer, template, train_on, sample(*ANSWERS)).split("«")[1:]]
        assert len(marked) == len(answers)
        for text, answer in zip(marked, answers, strict=True):
            assert answer in text
            assert not any(question in text for question in QUESTIONS)


@pytest.mark.parametrize("train_on", TrainOn)
def test_a_template_that_leaves_out_the_text_is_a_fault_of_the_row(tiny_tokenizer: Any, train_on: TrainOn) -> None:
    with pytest.raises(RowFault, match="does not show the content of a message"):
        shown(tiny_tokenizer, IN_PARTS, train_on, sample(*ANSWERS))


@pytest.mark.parametrize("train_on", [TrainOn.ASSISTANT, TrainOn.COMPLETION])
def test_of_a_template_that_renders_each_last_answer_otherwise_only_the_last_carries_loss(
    tiny_tokenizer: Any, train_on: TrainOn
) -> None:
    text = shown(tiny_tokenizer, ADDS_EMPTY_THOUGHTS, train_on, sample(*ANSWERS))
    assert text.count("«") == 1
    assert text.endswith(f"{CHATML_HEAD}«<think>\n\n</think>\n\n{ANSWERS[1]}<|im_end|>»\n")
