"""Which tokens carry loss: exact to the token, for every way in which a template can be marked."""

import copy
from typing import Any

import pytest
from rows import CHAT_TEMPLATE

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.conversation import FORGETS_TURNS
from hone_trainer.data.encode import Encoder
from hone_trainer.data.formats import to_sample
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import BadInput, RowFault

ALL_TEXT = 10_000
PLAIN_CHATML = CHAT_TEMPLATE.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
NO_GENERATION_PROMPT = PLAIN_CHATML[: PLAIN_CHATML.index("{%- if add_generation_prompt")]
# Shows only the last turn: the text of the first turns is no prefix of the whole.
FORGETFUL = "{%- set m = messages[-1] %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
ALTERNATING = "{%- if messages[0]['role'] == 'system' %}{{- raise_exception('No system role!') }}{%- endif %}"

MULTI_TURN = to_sample(
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "The kettle?"},
            {"role": "assistant", "content": "It works."},
            {"role": "user", "content": "And the lamp? 灯"},
            {"role": "assistant", "content": "  It broke: 坏了 😀 "},
        ]
    },
    DataFormat.MESSAGES,
)
HEAD = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nThe kettle?<|im_end|>\n<|im_start|>assistant\n"
MIDDLE = "\n<|im_start|>user\nAnd the lamp? 灯<|im_end|>\n<|im_start|>assistant\n"
FIRST, LAST = "It works.<|im_end|>", "  It broke: 坏了 😀 <|im_end|>"


def encoder_with(tokenizer: Any, template: str | None, train_on: TrainOn = TrainOn.ASSISTANT) -> Encoder:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return Encoder(tokenizer, train_on, chat=True)


def shown(encoder: Encoder, sample: Sample) -> str:
    return encoder.decode(encoder.encode(sample), ALL_TEXT)


@pytest.mark.parametrize(
    ("template", "marks"),
    [pytest.param(CHAT_TEMPLATE, "template", id="marked"), pytest.param(PLAIN_CHATML, "prefix", id="unmarked")],
)
@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        (TrainOn.ASSISTANT, f"{HEAD}«{FIRST}»{MIDDLE}«{LAST}»\n"),
        (TrainOn.COMPLETION, f"{HEAD}{FIRST}{MIDDLE}«{LAST}»\n"),
        (TrainOn.ALL, f"«{HEAD}{FIRST}{MIDDLE}{LAST}\n»"),
    ],
)
def test_exactly_the_wanted_turns_of_a_conversation_carry_loss(
    tiny_tokenizer: Any, template: str, marks: str, train_on: TrainOn, expected: str
) -> None:
    encoder = encoder_with(tiny_tokenizer, template, train_on)
    assert shown(encoder, MULTI_TURN) == expected
    assert encoder.marks == ("none" if train_on is TrainOn.ALL else marks)


def test_labels_repeat_the_ids_or_ignore_them(tiny_tokenizer: Any) -> None:
    encoded = encoder_with(tiny_tokenizer, CHAT_TEMPLATE).encode(MULTI_TURN)
    assert len(encoded.labels) == len(encoded.input_ids)
    assert all(label in (token, IGNORE_INDEX) for token, label in zip(encoded.input_ids, encoded.labels, strict=True))


def test_a_template_that_renders_old_turns_otherwise_is_marked_by_trls_variant_of_it(tiny_tokenizer: Any) -> None:
    from trl.chat_template_utils import qwen3_chat_template

    encoder = encoder_with(tiny_tokenizer, qwen3_chat_template)
    assert encoder.marks == "training variant"
    marked = [part.split("»")[0] for part in shown(encoder, MULTI_TURN).split("«")[1:]]
    assert len(marked) == 2
    assert FIRST in marked[0]
    assert LAST.strip() in marked[1]
    assert not any("user" in text or "system" in text for text in marked)


def test_a_template_that_forgets_turns_is_a_fault_of_the_row(tiny_tokenizer: Any) -> None:
    encoder = encoder_with(tiny_tokenizer, FORGETFUL)
    with pytest.raises(RowFault, match=FORGETS_TURNS):
        encoder.encode(MULTI_TURN)


def test_a_template_without_a_generation_prompt_trains_on_the_turns_head_too(tiny_tokenizer: Any) -> None:
    encoder = encoder_with(tiny_tokenizer, NO_GENERATION_PROMPT)
    assert "«<|im_start|>assistant\nIt works.<|im_end|>»" in shown(encoder, MULTI_TURN)


def test_a_conversation_that_the_template_refuses_is_a_fault_of_the_row(tiny_tokenizer: Any) -> None:
    encoder = encoder_with(tiny_tokenizer, ALTERNATING + PLAIN_CHATML)
    with pytest.raises(RowFault, match="rejects the conversation: No system role!"):
        encoder.encode(MULTI_TURN)


def test_conversations_need_a_chat_template(tiny_tokenizer: Any) -> None:
    with pytest.raises(BadInput) as error:
        encoder_with(tiny_tokenizer, None)
    assert error.value.field == "spec.model"
    assert "no chat template" in error.value.message
    assert "spec.dataset.chatTemplate" in (error.value.hint or "")


def test_the_prompt_ends_where_the_last_answer_begins(tiny_tokenizer: Any) -> None:
    encoder = encoder_with(tiny_tokenizer, PLAIN_CHATML)
    ids, text = encoder.prompt(MULTI_TURN)
    encoded = encoder.encode(MULTI_TURN)
    assert text == f"{HEAD}{FIRST}{MIDDLE}"
    assert encoded.input_ids[: len(ids)] == ids
    assert encoded.labels[len(ids)] != IGNORE_INDEX
    assert encoder.reference(MULTI_TURN) == "  It broke: 坏了 😀 "


def test_a_trained_end_of_turn_is_noticed(tiny_tokenizer: Any) -> None:
    marked = encoder_with(tiny_tokenizer, CHAT_TEMPLATE)
    assert marked.learns_to_stop(marked.encode(MULTI_TURN))
    stopless = CHAT_TEMPLATE.replace(
        "{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}",
        "{{- message['content'] }}{%- endgeneration %}{{- '<|im_end|>' }}",
    )
    assert stopless != CHAT_TEMPLATE
    without = encoder_with(tiny_tokenizer, stopless)
    assert not without.learns_to_stop(without.encode(MULTI_TURN))


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        (TrainOn.COMPLETION, "Review: it works. Verdict:« positive<|im_end|>»"),
        (TrainOn.ALL, "«Review: it works. Verdict: positive<|im_end|>»"),
    ],
)
def test_plain_text_carries_loss_on_the_completion_and_the_end(
    tiny_tokenizer: Any, train_on: TrainOn, expected: str
) -> None:
    encoder = Encoder(tiny_tokenizer, train_on, chat=False)
    sample = Sample(prompt="Review: it works. Verdict:", completion=" positive")
    assert shown(encoder, sample) == expected


def test_a_prompt_keeps_its_tokens_where_the_text_would_join_them_with_the_answer(tiny_tokenizer: Any) -> None:
    encoder = Encoder(tiny_tokenizer, TrainOn.COMPLETION, chat=False)
    sample = Sample(prompt="I bought this k", completion="ettle")
    joined = tiny_tokenizer(sample.prompt + sample.completion)["input_ids"]
    head, _ = encoder.prompt(sample)
    assert joined[: len(head)] != head, "the case must be one in which the tokens join"
    encoded = encoder.encode(sample)
    assert encoded.input_ids[: len(head)] == head
    assert encoder.decode(encoded, ALL_TEXT) == "I bought this k«ettle<|im_end|>»"


def test_the_shown_example_is_cut(tiny_tokenizer: Any) -> None:
    encoder = encoder_with(tiny_tokenizer, CHAT_TEMPLATE)
    text = encoder.decode(encoder.encode(MULTI_TURN), 40)
    assert len(text) == 40
    assert text.endswith("…")
