"""What is checked of every row's token ids: that the model has them, and that a text begins and ends once."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hone_trainer.data.conversation import Message
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.data.rows import Column
from hone_trainer.protocol.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TWO_BEGINNINGS = (
    "{} rows begin with {} twice: the tokenizer or the chat template writes it, so remove it from the rows. A server "
    "would write it twice as well."
)
_FEW = 0.01
"""The share of training rows up to which a token that ends an answer is taken for part of its text."""
_TWO_ENDS = (
    "In {} rows the answer ends with {} twice: the tokenizer or the chat template writes it, so remove it from the "
    "rows."
)
_SHORTEST = 3
"""Characters of the shortest special token that is looked for in texts: a shorter one is one of their words."""
_IN_TEXT = (
    "{} rows have {} in the text of a message. The tokenizer reads it as that token, not as words, as a server does: "
    "remove it, since the chat template writes such tokens itself."
)


@dataclass
class TokenChecks:
    """The checks of one tokenizer and model, and what they have counted.

    Attributes:
        vocabulary: how many tokens the model has embeddings for; None: not known.
        bos: the token that begins a text.
        special: the special tokens by id; one of them ends an answer.
        counts: rows by what is wrong with them.
        ends: training rows by the special token that ends their answer.
    """

    vocabulary: int | None = None
    bos: int | None = None
    special: dict[int, str] = field(default_factory=dict)
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase", vocabulary: int | None) -> "TokenChecks":
        """The checks of a model with so many embeddings."""
        special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        return cls(vocabulary, tokenizer.bos_token_id, special)

    def add_messages(self, messages: Iterable[Message]) -> None:
        """Check the texts of a row's messages, which a chat template renders."""
        text = "\n".join(str(message["content"]) for message in messages)
        for token, name in self.special.items():
            if len(name) >= _SHORTEST and name in text:
                self.counts[_IN_TEXT, token] += 1

    def add(self, columns: dict[str, Any], kinds: dict[str, Column], *, trained: bool) -> None:
        """Check a row.

        Args:
            columns: its columns.
            kinds: their kinds.
            trained: whether it is a training row.

        Raises:
            BadInput: the model has no embedding for one of its tokens.
        """
        ids = [columns[name] for name, kind in kinds.items() if kind is Column.IDS]
        self._check_known(max((max(each) for each in ids if each), default=0))
        if ids and self.bos is not None and ids[0][:2] == [self.bos, self.bos]:
            self.counts[_TWO_BEGINNINGS, self.bos] += 1
        answer = self._answer(columns, kinds)
        end = next((i for i in range(len(answer) - 1, -1, -1) if answer[i] in self.special), None)
        if end is None:
            return
        if trained:
            self.ends[answer[end]] += 1
        if end and answer[end - 1] == answer[end]:
            self.counts[_TWO_ENDS, answer[end]] += 1

    def empty(self) -> "TokenChecks":
        """The same checks of other rows, of which none is counted yet."""
        return replace(self, counts=Counter(), ends=Counter())

    def merge(self, other: "TokenChecks") -> None:
        """Add what was counted in other rows."""
        self.counts += other.counts
        self.ends += other.ends

    def warnings(self) -> list[str]:
        """Sentences about what was counted."""
        return [
            sentence.format(count, self.special.get(token, token)) for (sentence, token), count in self.counts.items()
        ]

    def learned_ends(self) -> list[int]:
        """The special tokens that the answers of training rows end with, except those that few of them end with."""
        total = self.ends.total()
        return sorted(token for token, count in self.ends.items() if count > _FEW * total)

    def _check_known(self, token: int) -> None:
        if self.vocabulary is not None and token >= self.vocabulary:
            raise BadInput(
                "spec.model",
                f"its tokenizer gives token {token}, but the model has only {self.vocabulary} embeddings (vocab_size "
                "in config.json)",
                "Use the tokenizer that belongs to the model, or resize its embeddings (resize_token_embeddings).",
            )

    @staticmethod
    def _answer(columns: dict[str, Any], kinds: dict[str, Column]) -> list[int]:
        """The tokens of what is learned; none for rows without an answer."""
        labels = next((columns[name] for name, kind in kinds.items() if kind is Column.LABELS), None)
        if labels is not None:
            return [token for token in labels if token != IGNORE_INDEX]
        answers = (columns[name] for name in ("chosen_ids", "completion_ids") if name in kinds)
        return next(answers, [])
