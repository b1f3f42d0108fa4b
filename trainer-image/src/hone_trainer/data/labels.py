"""From a labeled text to token ids and the index of its class."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.classes import Classes
from hone_trainer.data.formats import Sample
from hone_trainer.data.rows import Column
from hone_trainer.data.text import ids_of, render
from hone_trainer.protocol.errors import BadInput, RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Labeled:
    """A text as numbers, and its class."""

    input_ids: list[int]
    label: int

    @property
    def length(self) -> int:
        """Tokens of the text."""
        return len(self.input_ids)

    @property
    def first_trained(self) -> int:
        """Index of the first token that must not be cut: the class stays whatever is cut."""
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

    COLUMNS: ClassVar = {"input_ids": Column.IDS, "label": Column.NUMBER}
    NEIGHBORS: ClassVar = {}
    marks = "label"
    train_on = "Label"

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", classes: Classes) -> None:
        self._tokenizer = tokenizer
        self._pad = padding_id(tokenizer)
        self._indices = {name: index for index, name in enumerate(classes.names)}
        self.classes = classes

    def encode(self, sample: Sample) -> Labeled:
        """Ids and class of a sample.

        Raises:
            RowFault: the text has no token, or one that stands for padding.
        """
        ids = self._ids(sample.prompt)
        if not ids:
            raise RowFault("`text` gives no token")
        if self._pad in ids:
            raise RowFault(f"`text` holds {self._tokenizer.convert_ids_to_tokens(self._pad)}, which stands for padding")
        return Labeled(ids, self._indices[str(sample.label)])

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The first `limit` tokens of a text; the class stays."""
        return {"input_ids": row["input_ids"][:limit]}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text that are classified."""
        return self._ids(sample.prompt), sample.prompt

    def reference(self, sample: Sample) -> str:
        """The class's name."""
        return str(sample.label)

    def decode(self, encoded: Labeled, limit: int) -> str:
        """The row as text of at most `limit` characters, with «» around its class."""
        label = f" → «{self.classes.names[encoded.label]}»"
        return clip(self._tokenizer.decode(encoded.input_ids), limit - len(label)) + label

    def learns_to_stop(self, encoded: Labeled) -> bool:
        """True: nothing is generated."""
        return True

    def warnings(self) -> list[str]:
        """None."""
        return []

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, verbose=False)["input_ids"])


def padding_id(tokenizer: "PreTrainedTokenizerBase", *, chat: bool = False) -> int:
    """The token that rows are padded with: one that no text ends with, since class and score are read at the last
    other one.

    Args:
        tokenizer: the model's.
        chat: whether rows may be conversations, if it has a chat template: these may not end with it either.

    Raises:
        BadInput: the tokenizer has none.
    """
    last = tokenizer("a", verbose=False)["input_ids"][-1:]
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
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "a"})
    try:
        return ids_of(tokenizer, render(tokenizer, turns))[-1:]
    except RowFault:
        return []
