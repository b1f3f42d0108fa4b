"""The base model's tokenizer: byte-level BPE trained on the corpus, with a ChatML-like chat template."""

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dev.basemodel.corpus import ANSWER, TEXT, Document

VOCAB_SIZE = 1024
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
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
            pieces += [(f"{START}assistant\n", False), (content + END, True), ("\n", False)]
        else:
            pieces.append((f"{START}{role}\n{content}{END}\n", False))
    if document[0][0] == TEXT:
        pieces.append((END, False))
    return pieces


def train_tokenizer(documents: Iterable[Document], max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of VOCAB_SIZE tokens trained on the documents; `max_length` is the model's, in tokens."""
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
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The trainer would take the letters of special tokens for text.
    special = re.compile("|".join(map(re.escape, (START, END))))
    texts = (special.sub("", "".join(text for text, _ in render(document))) for document in documents)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=max_length,
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8"),
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
