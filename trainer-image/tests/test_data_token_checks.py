"""What is checked of every row's tokens: that the model has them, and that a text begins and ends once."""

import pytest

from hone_trainer.data.encode import Encoder
from hone_trainer.data.pairs import PairEncoder
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.data.sample import Sample
from hone_trainer.data.token_checks import TokenChecks
from hone_trainer.protocol.errors import BadInput

BOS, END, WORD = 1, 2, 7
SPECIAL = {BOS: "<s>", END: "</s>"}


def checks() -> TokenChecks:
    return TokenChecks(vocabulary=10, bos=BOS, special=SPECIAL)


def row(*ids: int, answer: int = 2) -> dict[str, list[int]]:
    return {"input_ids": [*ids], "labels": [IGNORE_INDEX] * (len(ids) - answer) + [*ids[-answer:]]}


def test_a_token_that_the_model_has_no_embedding_for_is_refused_in_every_column() -> None:
    checks().add(row(BOS, 9, END), Encoder.COLUMNS, trained=True)
    pair = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [10]}
    for columns, kinds in ((row(BOS, 10, END), Encoder.COLUMNS), (pair, PairEncoder.COLUMNS)):
        with pytest.raises(BadInput, match="token 10, but the model has only 10 embeddings") as error:
            checks().add(columns, kinds, trained=False)
        assert error.value.field == "spec.model"
    TokenChecks().add(row(BOS, 10, END), Encoder.COLUMNS, trained=True)


def test_two_beginnings_and_two_ends_are_counted() -> None:
    counted = checks()
    for ids in ((BOS, WORD, END), (BOS, BOS, WORD, END), (BOS, BOS, WORD, END, END), (BOS, WORD, WORD, WORD)):
        counted.add(row(*ids), Encoder.COLUMNS, trained=True)
    beginnings, ends = counted.warnings()
    assert beginnings.startswith("2 rows begin with <s> twice")
    assert ends.startswith("In 1 rows the answer ends with </s> twice")


def test_the_token_that_ends_answers_is_counted_in_training_rows() -> None:
    counted = checks()
    counted.add(row(BOS, WORD, END, WORD, answer=3), Encoder.COLUMNS, trained=True)
    counted.add(row(BOS, WORD, END), Encoder.COLUMNS, trained=False)
    pair = {"prompt_ids": [BOS], "chosen_ids": [WORD, END], "rejected_ids": [WORD]}
    counted.add(pair, PairEncoder.COLUMNS, trained=True)
    assert dict(counted.ends) == {END: 2}
    assert counted.learned_ends() == [END]
    counted.ends[BOS] = 1
    counted.ends[END] = 200
    assert counted.learned_ends() == [END], "a token that ends one of many answers is part of its text"


def test_special_tokens_in_the_text_of_messages_are_counted_once_for_each_row() -> None:
    counted = TokenChecks(special={BOS: "<s>", END: "</s>", WORD: "a"})
    for text in ("a</s> and a</s>", "a < s >", "<s>a</s>"):
        counted.add_messages([{"role": "user", "content": text}, {"role": "assistant", "content": "a"}])
    ends, beginnings = counted.warnings()
    assert ends.startswith("2 rows have </s> in the text of a message")
    assert beginnings.startswith("1 rows have <s> in the text")


def test_special_tokens_in_a_worse_answer_are_looked_for_too() -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "assistant")]
    sample = Sample(messages=tuple(turns[:2]), rejected=(turns[2],))
    assert [*sample.all_messages()] == turns
    assert Sample(prompt="a", completion="b", rejected="c").all_messages() == ()
