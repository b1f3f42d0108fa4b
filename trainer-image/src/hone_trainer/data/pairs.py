"""From a prompt with a better and a worse answer to token ids, as TRL's trainers take them."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.conversation import Message, require_template
from hone_trainer.data.labels import padding_id
from hone_trainer.data.rows import Column
from hone_trainer.data.sample import Sample, common_length
from hone_trainer.data.text import decoded, encode_answers, encode_prompt, ids_of, text_ids, text_of
from hone_trainer.protocol.errors import RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ScoredPair:
    """Two conversations or texts as numbers, prompt and answer in one."""

    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer one."""
        return max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def first_trained(self) -> int:
        """Index of the first token in which they differ: if both are cut before it, they are the same."""
        return common_length(self.chosen_ids, self.rejected_ids)

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {"chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}


class ScoreEncoder:
    """Turns pairs into ids for a model that scores, encoded as a server encodes the texts that it scores.

    A text therefore gets no end token but what the tokenizer itself adds: a client would have to add any other.

    Args:
        tokenizer: the model's.
        chat: whether there are conversations among the samples.

    Raises:
        BadInput: the tokenizer lacks a chat template, or a token to pad with.
    """

    COLUMNS: ClassVar[dict[str, Column]] = {"chosen_ids": Column.IDS, "rejected_ids": Column.IDS}
    NEIGHBORS: ClassVar[dict[str, str]] = {}
    marks = "pair"
    train_on = "Pair"
    classes = None

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat: bool) -> None:
        if chat:
            require_template(tokenizer)
        self._tokenizer = tokenizer
        self.notes = Counter[str]()
        self._pad = padding_id(tokenizer, chat=True)

    def encode(self, sample: Sample) -> ScoredPair:
        """Ids of both.

        Raises:
            RowFault: the chat template rejects the conversation, or one ends with the padding token.
        """
        pair = ScoredPair(*(self._whole(sample, answer) for answer in answers_of(sample)))
        for column, ids in pair.columns().items():
            if not ids or ids[-1] == self._pad:
                token = self._tokenizer.convert_ids_to_tokens(self._pad)
                raise RowFault(f"`{column.removesuffix('_ids')}` ends with {token}, which is the padding token")
        if pair.chosen_ids == pair.rejected_ids:
            raise RowFault(SAME_TOKENS)
        return pair

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The first `limit` tokens of both."""
        return {column: row[column][:limit] for column in self.COLUMNS}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what is answered."""
        return encode_prompt(self._tokenizer, sample)

    def reference(self, sample: Sample) -> str:
        """The better answer."""
        return text_of(answers_of(sample)[0])

    def decode(self, encoded: ScoredPair, limit: int) -> str:
        """Both as text of at most `limit` characters, with «» around the part in which they differ."""
        start = encoded.first_trained
        head = decoded(self._tokenizer, encoded.chosen_ids[:start])
        better, worse = (decoded(self._tokenizer, ids[start:]) for ids in (encoded.chosen_ids, encoded.rejected_ids))
        return clip(f"{head}«{better}» rather than «{worse}»", limit)

    def learns_to_stop(self, encoded: ScoredPair) -> bool:
        """True: nothing is generated."""
        return True

    def warnings(self) -> list[str]:
        """None."""
        return []

    def _whole(self, sample: Sample, answer: tuple[Message, ...] | str) -> list[int]:
        if isinstance(answer, str):
            return text_ids(self._tokenizer, sample.prompt + answer)
        whole = sample.conversation.until(sample.completion_start).followed_by(answer)
        return ids_of(self._tokenizer, whole.render(self._tokenizer))


@dataclass(frozen=True)
class Pair:
    """A prompt and two answers to it as numbers."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def first_trained(self) -> int:
        """Index of the first token in which they differ: if both are cut before it, they are the same."""
        return len(self.prompt_ids) + common_length(self.chosen_ids, self.rejected_ids)

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {"prompt_ids": self.prompt_ids, "chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}


class PairEncoder:
    """Turns pairs into ids for a model that is to give one answer rather than the other.

    Args:
        tokenizer: the model's.
        chat: whether there are conversations among the samples.

    Raises:
        BadInput: the tokenizer lacks a chat template.
    """

    COLUMNS: ClassVar[dict[str, Column]] = {
        "prompt_ids": Column.IDS,
        "chosen_ids": Column.IDS,
        "rejected_ids": Column.IDS,
    }
    NEIGHBORS: ClassVar[dict[str, str]] = {}
    marks = "pair"
    train_on = "Pair"
    classes = None

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat: bool) -> None:
        if chat:
            require_template(tokenizer)
        self._tokenizer = tokenizer
        self.notes = Counter[str]()

    def encode(self, sample: Sample) -> Pair:
        """Ids of the prompt, the better answer and the worse one.

        Raises:
            RowFault: the chat template rejects the conversation, or changes the prompt once an answer follows.
        """
        prompt, (chosen, rejected) = encode_answers(self._tokenizer, sample, answers_of(sample))
        if chosen == rejected:
            raise RowFault(SAME_TOKENS)
        return Pair(prompt, chosen, rejected)

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The prompt, and of each answer what fits into `limit` tokens with it."""
        left = limit - len(row["prompt_ids"])
        return {"chosen_ids": row["chosen_ids"][:left], "rejected_ids": row["rejected_ids"][:left]}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what is answered, the ids as `encode` separates them from the answers."""
        return self.encode(sample).prompt_ids, encode_prompt(self._tokenizer, sample)[1]

    def reference(self, sample: Sample) -> str:
        """The better answer."""
        return text_of(answers_of(sample)[0])

    def decode(self, encoded: Pair, limit: int) -> str:
        """The row as text of at most `limit` characters, with «» around the answers."""
        parts = [decoded(self._tokenizer, ids) for ids in encoded.columns().values()]
        return clip("{}«{}» rather than «{}»".format(*parts), limit)

    def learns_to_stop(self, encoded: Pair) -> bool:
        """Whether any special token, such as the one that ends a turn, is among the better answer's."""
        return bool(set(encoded.chosen_ids) & set(self._tokenizer.all_special_ids))

    def warnings(self) -> list[str]:
        """None."""
        return []


SAME_TOKENS = "`chosen` and `rejected` give the same tokens"


def answers_of(sample: Sample) -> tuple[tuple[Message, ...] | str, tuple[Message, ...] | str]:
    """The better and the worse answer of a pair."""
    better = sample.messages[sample.completion_start :] if sample.is_chat else sample.completion
    return better, sample.rejected
