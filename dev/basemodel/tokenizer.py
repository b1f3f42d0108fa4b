"""The base model's tokenizer: byte-level BPE trained on the corpus, with a chat template."""

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dev.basemodel.corpus import ANSWER, TEXT, Document

VOCAB_SIZE = 1024
PAD, END = "<|endoftext|>", "<|end|>"
ROLES = ("system", "user", "assistant")
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
# Words with the space before them, runs of digits, punctuation and line ends apart: a word is the same token
# wherever it stands in a line.
_WORD = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s"


def render(document: Document) -> list[tuple[str, bool]]:
    """The document as the chat template writes it (tested), cut into pieces; True marks what the model answers."""
    pieces: list[tuple[str, bool]] = []
    for role, content in document:
        if role in (TEXT, ANSWER):
            pieces.append((content, role == ANSWER))
        elif role == "assistant":
            pieces += [("<|assistant|>", False), (content + END, True)]
        else:
            pieces.append((f"<|{role}|>{content}{END}", False))
    if document[0][0] == TEXT:
        pieces.append((END, False))
    return pieces


def train_tokenizer(documents: Iterable[Document], max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of VOCAB_SIZE tokens trained on the documents; `max_length` is the model's, in tokens."""
    special_tokens = [PAD, END, *(f"<|{role}|>" for role in ROLES)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The trainer would take the letters of special tokens for text.
    special = re.compile("|".join(map(re.escape, special_tokens)))
    texts = (special.sub("", "".join(text for text, _ in render(document))) for document in documents)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=special_tokens[2:],
        model_max_length=max_length,
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8"),
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
