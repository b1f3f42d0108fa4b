"""Pairs of answers: which rows hold one, what their prompt is, how they are split, encoded and cut."""

import copy
from typing import Any

import pytest

from hone.contract.settings import DataFormat
from hone_trainer.data.formats import detect, to_sample
from hone_trainer.data.labels import padding_id
from hone_trainer.data.pairs import PairEncoder, ScoreEncoder
from hone_trainer.data.sample import Sample
from hone_trainer.data.splits import prompt_key, row_key
from hone_trainer.protocol.errors import BadInput, RowFault

USER = {"role": "user", "content": "Is it good?"}
YES, NO = ({"role": "assistant", "content": word} for word in ("Yes.", "No."))


def pair(**row: Any) -> Sample:
    return to_sample(row, DataFormat.PREFERENCE)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"chosen": "a"}, "no column `rejected`", id="no worse answer"),
        pytest.param({"prompt": "a", "chosen": "b", "rejected": " b "}, "are the same", id="the same answer twice"),
        pytest.param({"prompt": "a", "chosen": "", "rejected": "b"}, "`chosen` is empty", id="no text"),
        pytest.param({"prompt": " ", "chosen": "b", "rejected": "c"}, "`prompt` is empty", id="no prompt"),
        pytest.param({"chosen": "yes", "rejected": "no"}, "begin differently", id="nothing in common"),
        pytest.param({"chosen": "yesterday", "rejected": "yes"}, "begin differently", id="half a word in common"),
        pytest.param({"prompt": "a", "chosen": "b", "rejected": 1}, "must all be strings or", id="a number"),
        pytest.param({"prompt": "a", "chosen": [YES], "rejected": "b"}, "must all be strings or", id="one of each"),
        pytest.param(
            {"prompt": [USER], "chosen": "b", "rejected": "c"}, "must all be strings or", id="answers as text"
        ),
        pytest.param(
            {"prompt": "a", "chosen": [USER, YES], "rejected": [USER, NO]}, "leave out `prompt`", id="another question"
        ),
        pytest.param(
            {"prompt": "Is it good?", "chosen": [USER, YES], "rejected": [{"role": "x"}]},
            "`rejected` holds",
            id="no turn",
        ),
        pytest.param({"prompt": [USER], "chosen": [YES], "rejected": [YES]}, "are the same", id="the same turn twice"),
        pytest.param(
            {"chosen": [USER, YES], "rejected": [{**USER, "content": "?"}, NO]}, "begin differently", id="two"
        ),
        pytest.param(
            {"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]}, "leave out `prompt`", id="prompt twice"
        ),
        pytest.param(
            {"chosen": [USER, YES], "rejected": [USER, YES, USER]}, "`chosen` must begin and end", id="one in the other"
        ),
    ],
)
def test_a_bad_pair_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.PREFERENCE)
    assert reason in str(fault.value)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        pytest.param("Is it good? Yes.", "Is it good? No.", "Is it good?", id="words"),
        pytest.param("Is it good?\nYes.", "Is it good?\nNo.", "Is it good?\n", id="lines"),
        pytest.param(
            "Q: so? A: tenfold", "Q: so? A: tender", "Q: so? A:", id="answers that begin with the same letters"
        ),
        pytest.param("Say it. Yes", "Say it. Yes indeed", "Say it.", id="one answer begins with the other"),
    ],
)
def test_what_both_texts_begin_with_is_the_prompt(chosen: str, rejected: str, prompt: str) -> None:
    sample = pair(chosen=chosen, rejected=rejected)
    assert sample.prompt == prompt
    assert (sample.prompt + sample.completion, f"{sample.prompt}{sample.rejected}") == (chosen, rejected)


def test_what_both_conversations_begin_with_is_the_prompt() -> None:
    expected = Sample(messages=(USER, YES, USER, YES), completion_start=3, rejected=(NO,))
    assert pair(chosen=[USER, YES, USER, YES], rejected=[USER, YES, USER, NO]) == expected
    assert pair(prompt=[USER, YES, USER], chosen=[YES], rejected=[NO]) == expected


def test_a_prompt_may_be_text_beside_conversations() -> None:
    expected = Sample(messages=(USER, YES), completion_start=1, rejected=(NO,))
    question = USER["content"]
    assert pair(prompt=question, chosen=[YES], rejected=[NO]) == expected
    assert pair(prompt=f"{question}\n", chosen=[USER, YES], rejected=[USER, NO]) == expected, "as in UltraFeedback"


def test_the_format_is_told_by_the_columns() -> None:
    assert detect({"prompt": "", "chosen": "", "rejected": ""}) is DataFormat.PREFERENCE
    assert detect({"prompt": "", "completion": "", "rejected": ""}) is DataFormat.PROMPT_COMPLETION


def test_pairs_of_one_prompt_stay_together_and_another_worse_answer_is_another_row() -> None:
    first = pair(prompt="Is it good?", chosen="Yes", rejected="No")
    second = pair(prompt="is it  good?", chosen="Yes", rejected="Maybe")
    assert prompt_key(first) == prompt_key(second)
    other = pair(prompt="Is it good?", chosen="Yes", rejected="Maybe")
    assert row_key(first) != row_key(other)
    chats = [pair(prompt=[USER], chosen=[YES], rejected=[bad]) for bad in (NO, {**NO, "content": "Never."})]
    assert prompt_key(chats[0]) == prompt_key(chats[1])
    assert row_key(chats[0]) != row_key(chats[1])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"prompt": "a", "completion": "b", "label": 2}, "is not true, false, 1 or 0", id="a number"),
        pytest.param({"prompt": "a", "completion": "b", "label": "yes"}, "is not true, false, 1 or 0", id="a string"),
        pytest.param({"prompt": "a", "completion": "b"}, "no column `label`", id="no rating"),
        pytest.param({"prompt": "a", "completion": " ", "label": True}, "`completion` is empty", id="no answer"),
        pytest.param(
            {"prompt": [USER], "completion": [USER, YES], "label": True}, "does not begin with", id="prompt twice"
        ),
    ],
)
def test_a_bad_rating_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.UNPAIRED_PREFERENCE)
    assert reason in str(fault.value)


def test_a_boolean_beside_a_completion_is_a_rating_and_another_label_is_not() -> None:
    row = {"prompt": "a", "completion": "b"}
    assert detect({**row, "label": False}) is DataFormat.UNPAIRED_PREFERENCE
    assert detect({**row, "label": "news"}) is DataFormat.PROMPT_COMPLETION
    assert to_sample({**row, "label": False}, DataFormat.UNPAIRED_PREFERENCE).label == "false"


@pytest.mark.parametrize(("label", "rating"), [(1, "true"), (0, "false"), ("1", "true"), (" 0", "false")])
def test_a_rating_may_be_a_number(label: Any, rating: str) -> None:
    row = {"prompt": "a", "completion": "b", "label": label}
    assert to_sample(row, DataFormat.UNPAIRED_PREFERENCE).label == rating


# As a model that is to prefer one reads them.


def test_prompt_and_answers_of_a_conversation_are_parted_where_the_answer_begins(tiny_tokenizer: Any) -> None:
    encoder = PairEncoder(tiny_tokenizer, chat=True)
    encoded = encoder.encode(pair(prompt=[USER], chosen=[YES], rejected=[NO]))
    parts = [tiny_tokenizer.decode(ids) for ids in encoded.columns().values()]
    head = "<|im_start|>user\nIs it good?<|im_end|>\n<|im_start|>assistant\n"
    assert parts == [head, "Yes.<|im_end|>\n", "No.<|im_end|>\n"]
    assert encoder.learns_to_stop(encoded)


def test_answers_in_plain_text_end_with_the_token_that_ends_a_text(tiny_tokenizer: Any) -> None:
    encoded = PairEncoder(tiny_tokenizer, chat=False).encode(pair(prompt="So?", chosen=" Yes.", rejected=" No."))
    assert encoded.prompt_ids == tiny_tokenizer("So?")["input_ids"]
    assert tiny_tokenizer.decode(encoded.chosen_ids) == " Yes.<|im_end|>"
    assert tiny_tokenizer.decode(encoded.rejected_ids) == " No.<|im_end|>"


def test_a_template_that_writes_the_prompt_otherwise_before_an_answer_is_a_fault(tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    with pytest.raises(RowFault, match="changes the prompt once an answer follows"):
        PairEncoder(tokenizer, chat=True).encode(pair(prompt=[USER], chosen=[YES], rejected=[NO]))


def test_only_answers_are_cut(tiny_tokenizer: Any) -> None:
    encoder = PairEncoder(tiny_tokenizer, chat=False)
    encoded = encoder.encode(pair(prompt="So?", chosen=" yes and yes and yes", rejected=" no"))
    head = len(encoded.prompt_ids)
    cut = encoder.cut({**encoded.columns(), "length": encoded.length}, head + 2)
    assert (cut["chosen_ids"], cut["rejected_ids"]) == (encoded.chosen_ids[:2], encoded.rejected_ids[:2])
    assert "prompt_ids" not in cut


# As a reward model reads them.


def test_a_conversation_is_encoded_as_the_template_writes_it(tiny_tokenizer: Any) -> None:
    encoded = ScoreEncoder(tiny_tokenizer, chat=True).encode(pair(prompt=[USER], chosen=[YES], rejected=[NO]))
    head = "<|im_start|>user\nIs it good?<|im_end|>\n<|im_start|>assistant\n"
    assert tiny_tokenizer.decode(encoded.chosen_ids) == f"{head}Yes.<|im_end|>\n"
    assert tiny_tokenizer.decode(encoded.rejected_ids) == f"{head}No.<|im_end|>\n"


def test_a_text_is_encoded_as_a_server_does_without_an_end_of_its_own(tiny_tokenizer: Any) -> None:
    encoded = ScoreEncoder(tiny_tokenizer, chat=False).encode(pair(prompt="So?", chosen=" Yes.", rejected=" No."))
    assert encoded.chosen_ids == tiny_tokenizer("So? Yes.")["input_ids"]


def test_a_pair_is_of_no_use_once_it_is_cut_before_its_answers_differ(tiny_tokenizer: Any) -> None:
    encoder = ScoreEncoder(tiny_tokenizer, chat=False)
    encoded = encoder.encode(pair(prompt="So?", chosen=" well, yes", rejected=" well, no"))
    start = encoded.first_trained
    assert encoded.chosen_ids[:start] == encoded.rejected_ids[:start]
    assert encoded.chosen_ids[start] != encoded.rejected_ids[start]
    assert start > len(tiny_tokenizer("So?")["input_ids"])
    cut = encoder.cut({**encoded.columns(), "length": encoded.length}, start + 1)
    assert cut["chosen_ids"] == encoded.chosen_ids[: start + 1]


def test_the_example_shows_what_differs(tiny_tokenizer: Any) -> None:
    encoder = ScoreEncoder(tiny_tokenizer, chat=True)
    shown = encoder.decode(encoder.encode(pair(prompt=[USER], chosen=[YES], rejected=[NO])), 1000)
    assert shown.endswith("assistant\n«Yes.<|im_end|>\n» rather than «No.<|im_end|>\n»")


def test_nothing_that_a_conversation_ends_with_stands_for_padding(tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    assert padding_id(tokenizer) == tokenizer.eos_token_id
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    tokenizer.unk_token = "<|endoftext|>"
    assert padding_id(tokenizer, chat=True) == tokenizer.unk_token_id
    tokenizer.unk_token = None
    with pytest.raises(BadInput, match="no token to pad with"):
        padding_id(tokenizer, chat=True)
