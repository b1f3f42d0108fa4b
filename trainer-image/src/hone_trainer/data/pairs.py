"""From a prompt with a better and a worse answer to token ids, as TRL's trainers take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.formats import Message, Sample, common_length
from hone_trainer.data.labels import padding_id
from hone_trainer.data.rows import Column
from hone_trainer.data.text import answered, ids_of, opening_ids, render, require_template
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
        """Index of the first token in which they differ: cut before it, both are the same."""
        return common_length(self.chosen_ids, self.rejected_ids)

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {"chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}


class ScoreEncoder:
    """Turns pairs into ids for a model that scores, encoded as a server encodes what it is asked to score.

    A text therefore gets no token that ends it, other than the tokenizer's own: a client would have to add it.

    Args:
        tokenizer: the model's.
        chat: whether there are conversations among the samples.

    Raises:
        BadInput: the tokenizer lacks a chat template, or a token to pad with.
    """

    COLUMNS: ClassVar = {"chosen_ids": Column.IDS, "rejected_ids": Column.IDS}
    NEIGHBORS: ClassVar = {}
    marks = "pair"
    train_on = "Pair"
    classes = None

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat: bool) -> None:
        if chat:
            require_template(tokenizer)
        self._tokenizer = tokenizer
        self._pad = padding_id(tokenizer, chat=True)

    def encode(self, sample: Sample) -> ScoredPair:
        """Ids of both.

        Raises:
            RowFault: the chat template refuses the conversation, or one ends with the token that stands for padding.
        """
        pair = ScoredPair(*(self._whole(sample, answer) for answer in answers_of(sample)))
        for column, ids in pair.columns().items():
            if not ids or ids[-1] == self._pad:
                token = self._tokenizer.convert_ids_to_tokens(self._pad)
                raise RowFault(f"`{column.removesuffix('_ids')}` ends with {token}, which stands for padding")
        if pair.chosen_ids == pair.rejected_ids:
            raise RowFault(SAME_TOKENS)
        return pair

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The first `limit` tokens of both."""
        return {column: row[column][:limit] for column in self.COLUMNS}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what is answered."""
        return asked_of(self._tokenizer, sample)

    def reference(self, sample: Sample) -> str:
        """The better answer."""
        return text_of(answers_of(sample)[0])

    def decode(self, encoded: ScoredPair, limit: int) -> str:
        """Both as text of at most `limit` characters, with «» around what they differ in."""
        start = encoded.first_trained
        head = self._tokenizer.decode(encoded.chosen_ids[:start])
        better, worse = (self._tokenizer.decode(ids[start:]) for ids in (encoded.chosen_ids, encoded.rejected_ids))
        return clip(f"{head}«{better}» rather than «{worse}»", limit)

    def learns_to_stop(self, encoded: ScoredPair) -> bool:
        """True: nothing is generated."""
        return True

    def warnings(self) -> list[str]:
        """None."""
        return []

    def _whole(self, sample: Sample, answer: tuple[Message, ...] | str) -> list[int]:
        if isinstance(answer, str):
            return list(self._tokenizer(sample.prompt + answer, verbose=False)["input_ids"])
        return ids_of(self._tokenizer, render(self._tokenizer, sample.messages[: sample.completion_start] + answer))


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
        """Index of the first token in which they differ: cut before it, both are the same."""
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

    COLUMNS: ClassVar = {"prompt_ids": Column.IDS, "chosen_ids": Column.IDS, "rejected_ids": Column.IDS}
    NEIGHBORS: ClassVar = {}
    marks = "pair"
    train_on = "Pair"
    classes = None

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat: bool) -> None:
        if chat:
            require_template(tokenizer)
        self._tokenizer = tokenizer

    def encode(self, sample: Sample) -> Pair:
        """Ids of the prompt, the better answer and the worse one.

        Raises:
            RowFault: the chat template refuses the conversation, or writes the prompt otherwise before an answer.
        """
        prompt, (chosen, rejected) = parted(self._tokenizer, sample, answers_of(sample))
        if chosen == rejected:
            raise RowFault(SAME_TOKENS)
        return Pair(prompt, chosen, rejected)

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The prompt, and of each answer what fits into `limit` tokens with it."""
        left = limit - len(row["prompt_ids"])
        return {"chosen_ids": row["chosen_ids"][:left], "rejected_ids": row["rejected_ids"][:left]}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what is answered, the ids as `encode` parts them from the answers."""
        return self.encode(sample).prompt_ids, asked_of(self._tokenizer, sample)[1]

    def reference(self, sample: Sample) -> str:
        """The better answer."""
        return text_of(answers_of(sample)[0])

    def decode(self, encoded: Pair, limit: int) -> str:
        """The row as text of at most `limit` characters, with «» around the answers."""
        parts = [self._tokenizer.decode(ids) for ids in encoded.columns().values()]
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


def parted(
    tokenizer: "PreTrainedTokenizerBase", sample: Sample, answers: "Sequence[tuple[Message, ...] | str]"
) -> tuple[list[int], list[list[int]]]:
    """Ids of a sample's prompt, and of each answer to it, with the token that ends a turn or text.

    Prompt and answer behind one another are the ids of the whole conversation. The prompt ends where that is no longer
    the prompt's own, which may be a token early: an answer may change the last one.

    Raises:
        RowFault: the chat template refuses the conversation, or writes the prompt otherwise before an answer.
    """
    if not sample.is_chat:
        return answered(tokenizer, sample.prompt, *map(str, answers))
    head, _ = asked_of(tokenizer, sample)
    texts = [render(tokenizer, (*sample.messages[: sample.completion_start], *answer)) for answer in answers]
    # What asks for an answer may open thoughts that the answer does not have; what is asked must stay.
    context = render(tokenizer, sample.messages[: sample.completion_start])
    if not all(text.startswith(context) for text in texts):
        raise RowFault("the chat template writes the prompt otherwise once an answer follows")
    wholes = [ids_of(tokenizer, text) for text in texts]
    end = min(common_length(head, whole) for whole in wholes)
    return head[:end], [whole[end:] for whole in wholes]


def text_of(answer: tuple[Message, ...] | str) -> str:
    """An answer's text; of several turns the last one's."""
    return answer if isinstance(answer, str) else answer[-1]["content"]


def asked_of(tokenizer: "PreTrainedTokenizerBase", sample: Sample) -> tuple[list[int], str]:
    """Ids and text of what comes before the answers, as a server would build them from the same request."""
    if not sample.is_chat:
        return opening_ids(tokenizer, sample.prompt), sample.prompt
    text = render(tokenizer, sample.messages[: sample.completion_start], add_generation_prompt=True)
    return ids_of(tokenizer, text), text
