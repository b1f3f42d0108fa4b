"""Where a prompt's tokens end: encoding a row once tells the same as encoding its prompt alone, with any tokenizer."""

import random
from typing import Any

import pytest

from hone_trainer.data import answer, marks
from hone_trainer.protocol.errors import RowFault

MARKS = ("<s>", "<|user|>", "<|end|>")
PIECES = (*MARKS, "the", " the", "them", "em", " ", "  ", "\n", "é", "<", "|end|>", ">", "\U0001f600", "Cat", "▁the")
TEXTS = ["the them cat < | end user > é \U0001f600 there he em Cat"] * 20


def tokenizer(kind: str) -> Any:
    """A tokenizer that parts words in one of the usual ways, with added tokens of different settings."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    model = models.Unigram() if kind == "unigram" else models.BPE(unk_token=None if kind == "bytes" else "<unk>")
    raw: Any = Tokenizer(model)
    settings: dict[str, Any] = {"show_progress": False, "vocab_size": 300, "special_tokens": ["<unk>"]}
    if kind == "bytes":
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
        settings["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    elif kind in ("first", "always", "unigram"):
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if kind == "always" else "first")
    elif kind == "prepend":
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        raw.normalizer, raw.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    trainer = (
        trainers.UnigramTrainer(unk_token="<unk>", **settings) if kind == "unigram" else trainers.BpeTrainer(**settings)
    )
    raw.train_from_iterator(TEXTS, trainer)
    raw.add_tokens(
        [
            AddedToken("<s>", special=True, normalized=False),
            AddedToken("<|user|>", special=True, normalized=kind == "words", rstrip=kind == "always"),
            AddedToken("<|end|>", special=True, normalized=False, lstrip=kind in ("first", "bytes")),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", ["bytes", "first", "always", "unigram", "prepend", "words"])
def test_a_prompt_ends_where_its_own_tokens_end(kind: str) -> None:
    fast, chance, boundaries, shortened = tokenizer(kind), random.Random(0), 0, 0
    for _ in range(400):
        pieces = chance.choices(PIECES, k=chance.randrange(2, 12))
        text, begin = "".join(pieces), len("".join(pieces[: chance.randrange(len(pieces))]))
        whole = fast(text, add_special_tokens=False)["input_ids"]
        head = fast(text[:begin], add_special_tokens=False)["input_ids"]
        try:
            tokens = answer.encode_at(fast, text, begin)
        except RowFault:
            assert whole[: len(head)] != head
            continue
        assert tokens.ids[: tokens.first] == head, (text, begin)
        if whole[: len(head)] == head:
            boundaries += 1
            assert (tokens.ids, tokens.first) == (whole, len(head))
        offsets = fast(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        shortened += marks.last_mark(fast, text[:begin], whole, offsets) > 0
    assert min(boundaries, shortened) > 40, "too few of them say something"


@pytest.mark.parametrize("kind", ["bytes", "first", "always", "unigram", "prepend", "words"])
def test_marks_tell_the_same_loss_as_the_places_of_all_tokens(kind: str) -> None:
    fast, chance, certain = tokenizer(kind), random.Random(1), 0
    for _ in range(400):
        pieces = [*chance.choices((*PIECES, "<unk>"), k=chance.randrange(3, 14)), "<s>", chance.choice(("", "\n"))]
        places = [len("".join(pieces[:i])) for i in range(len(pieces))]
        text, (first, after, begin) = "".join(pieces), sorted(chance.choices(places[:-2], k=3))
        spans = [(first, len(text[:after].rstrip())), (begin, len(text.rstrip()))][chance.randrange(2) :]
        try:
            tokens = answer.encode_at(fast, text, begin)
        except RowFault:
            continue
        by_places = answer.Tokens(tokens.ids, tokens.first, tokens.offsets)
        certain += bool(tokens.marks and tokens.marks.parts(spans))
        for last in (True, False):
            assert answer.carries_loss(tokens, spans, last=last) == answer.carries_loss(by_places, spans, last=last), (
                text,
                spans,
            )
        if tokens.marks:
            encoded = fast(text, add_special_tokens=False, return_offsets_mapping=True)
            assert (tokens.ids, tokens.offsets()) == (encoded["input_ids"], encoded["offset_mapping"])
    assert certain > 20, "too few of them say something"


@pytest.mark.parametrize("answer_text", ["\n\nYes.", "\n", "\n\n\n\nYes.", " \nYes.", "Yes."])
def test_an_answer_that_begins_with_line_breaks_has_them_as_tokens_of_its_own(answer_text: str) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw: Any = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(show_progress=False, vocab_size=300, initial_alphabet=alphabet)
    # Line breaks become one token, as those of most models do.
    raw.train_from_iterator(["a\n\n\n\nb", "a\n\n\nb", "a\n\nb", "a\nb"] * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw)
    prompt = "### User\nIs it?\n### Assistant\n"
    tokens = answer.encode_at(fast, prompt + answer_text, len(prompt))
    assert tokens.ids[: tokens.first] == fast(prompt)["input_ids"], "what a server asks with"
    assert fast.decode(tokens.ids[tokens.first :]) == answer_text
    span = (len(prompt), len(prompt + answer_text))
    mask = answer.carries_loss(tokens, [span], last=True)
    assert mask == [0] * tokens.first + [1] * (len(tokens.ids) - tokens.first)
