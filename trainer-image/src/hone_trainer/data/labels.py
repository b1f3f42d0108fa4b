"""From a labeled text to token ids and the index of its class, or the indices of its classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.classes import Classes
from hone_trainer.data.conversation import Conversation
from hone_trainer.data.label_values import names_of
from hone_trainer.data.rows import Column
from hone_trainer.data.sample import Sample
from hone_trainer.data.text import decoded, ids_of, text_ids
from hone_trainer.protocol.errors import BadInput, RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NO_CLASS = "(none)"


@dataclass(frozen=True)
class Labeled:
    """A text as numbers, and its class, or all of its classes in order."""

    input_ids: list[int]
    label: int | list[int]

    @property
    def length(self) -> int:
        """Tokens of the text."""
        return len(self.input_ids)

    @property
    def first_trained(self) -> int:
        """0: the class stays, however much of the text is cut."""
        return 0

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {"input_ids": self.input_ids, "label": self.label}


class LabelEncoder:
    """Turns labeled texts into ids and classes, the texts as a server encodes them: with the special tokens that open
    and close a text.

    Args:
        tokenizer: the model's.
        classes: all classes.

    Raises:
        BadInput: the tokenizer has no token to pad with.
    """

    COLUMNS: ClassVar[dict[str, Column]] = {"input_ids": Column.IDS, "label": Column.NUMBER}
    NEIGHBORS: ClassVar[dict[str, str]] = {}
    marks = "label"
    train_on = "Label"

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", classes: Classes) -> None:
        self._tokenizer = tokenizer
        self.notes = Counter[str]()
        self._pad = padding_id(tokenizer)
        self._indices = {name: index for index, name in enumerate(classes.names)}
        self.classes = classes

    def encode(self, sample: Sample) -> Labeled:
        """Ids and class of a sample.

        Raises:
            RowFault: the text has no tokens, or the padding token.
        """
        ids = self._ids(sample.prompt)
        if not ids:
            raise RowFault("`text` has no tokens")
        if self._pad in ids:
            raise RowFault(
                f"`text` holds {self._tokenizer.convert_ids_to_tokens(self._pad)}, which is the padding token"
            )
        return Labeled(ids, self._label([self._indices[name] for name in names_of(sample.label)]))

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The first `limit` tokens of a text; the class stays."""
        return {"input_ids": row["input_ids"][:limit]}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text that are classified."""
        return self._ids(sample.prompt), sample.prompt

    def reference(self, sample: Sample) -> str:
        """The class's name, or those of all classes."""
        return in_words(names_of(sample.label))

    def decode(self, encoded: Labeled, limit: int) -> str:
        """The row as text of at most `limit` characters, with «» around its class."""
        indices = encoded.label if isinstance(encoded.label, list) else [encoded.label]
        label = f" → «{clip(in_words([self.classes.names[index] for index in indices]), limit // 2)}»"
        return clip(decoded(self._tokenizer, encoded.input_ids), limit - len(label)) + label

    def learns_to_stop(self, encoded: Labeled) -> bool:
        """True: nothing is generated."""
        return True

    def warnings(self) -> list[str]:
        """None."""
        return []

    def _label(self, indices: list[int]) -> int | list[int]:
        (index,) = indices
        return index

    def _ids(self, text: str) -> list[int]:
        return text_ids(self._tokenizer, text)


class LabelsEncoder(LabelEncoder):
    """The same for texts that may have several classes, or none."""

    COLUMNS: ClassVar[dict[str, Column]] = {"input_ids": Column.IDS, "label": Column.CLASSES}
    marks = "labels"
    train_on = "Labels"

    def _label(self, indices: list[int]) -> int | list[int]:
        return sorted(indices)


def in_words(names: Sequence[str]) -> str:
    """Classes as one text, for reports."""
    return ", ".join(names) or NO_CLASS


def padding_id(tokenizer: "PreTrainedTokenizerBase", *, chat: bool = False) -> int:
    """The token that rows are padded with. No text may end with it: class and score are read at the last other token.

    Args:
        tokenizer: the model's.
        chat: whether rows may be conversations, if it has a chat template: these may not end with it either.

    Raises:
        BadInput: the tokenizer has none.
    """
    last = text_ids(tokenizer, "a")[-1:]
    if chat and tokenizer.chat_template:
        last += _end_of_a_chat(tokenizer)
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id):
        if token is not None and token not in last:
            return int(token)
    raise BadInput(
        "spec.model",
        "its tokenizer has no token to pad with (pad_token, eos_token, unk_token or bos_token)",
        "Add a pad_token to tokenizer_config.json.",
    )


def _end_of_a_chat(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    chat = Conversation(({"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}))
    try:
        return ids_of(tokenizer, chat.render(tokenizer))[-1:]
    except RowFault:
        return []
