"""From a prompt with an answer that was rated good or bad to token ids, as TRL's KTOTrainer takes them."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.classes import RATED, Classes
from hone_trainer.data.conversation import require_template
from hone_trainer.data.rows import Column
from hone_trainer.data.sample import Sample
from hone_trainer.data.text import decoded, encode_answers, encode_prompt, text_of
from hone_trainer.protocol.errors import clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rated:
    """A prompt and an answer as numbers, and the index of its rating in `RATED`."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: int

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def first_trained(self) -> int:
        """Index of the answer's first token."""
        return len(self.prompt_ids)

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {"prompt_ids": self.prompt_ids, "completion_ids": self.completion_ids, "label": self.label}


class RatedEncoder:
    """Turns rated answers into ids and ratings.

    KTO compares with the likelihood of an answer to another prompt, here that of the previous row. TRL pairs rows the
    same way, but within a micro-batch, whose size may change during a run.

    Args:
        tokenizer: the model's.
        chat: whether there are conversations among the samples.
        classes: bad and good answers, with their training rows.

    Raises:
        BadInput: the tokenizer lacks a chat template.
    """

    COLUMNS: ClassVar[dict[str, Column]] = {
        "prompt_ids": Column.IDS,
        "completion_ids": Column.IDS,
        "label": Column.NUMBER,
    }
    NEIGHBORS: ClassVar[dict[str, str]] = {"KL_completion_ids": "completion_ids"}
    marks = "rating"
    train_on = "Completion"

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat: bool, classes: Classes) -> None:
        if chat:
            require_template(tokenizer)
        self._tokenizer = tokenizer
        self.notes = Counter[str]()
        self.classes = classes

    def encode(self, sample: Sample) -> Rated:
        """Ids of the prompt and the answer, and its rating.

        Raises:
            RowFault: the chat template rejects the conversation, or changes the prompt once an answer follows.
        """
        answer = sample.messages[sample.completion_start :] if sample.is_chat else sample.completion
        prompt, (completion,) = encode_answers(self._tokenizer, sample, [answer])
        return Rated(prompt, completion, RATED.index(str(sample.label)))

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The prompt, and of the answer what fits into `limit` tokens with it."""
        return {"completion_ids": row["completion_ids"][: limit - len(row["prompt_ids"])]}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what is answered, the ids as `encode` separates them from the answer."""
        return self.encode(sample).prompt_ids, encode_prompt(self._tokenizer, sample)[1]

    def reference(self, sample: Sample) -> str:
        """The answer."""
        return text_of(sample.messages[sample.completion_start :] if sample.is_chat else sample.completion)

    def decode(self, encoded: Rated, limit: int) -> str:
        """The row as text of at most `limit` characters, with «» around the answer."""
        prompt, answer = (decoded(self._tokenizer, ids) for ids in (encoded.prompt_ids, encoded.completion_ids))
        return clip(f"{prompt}«{answer}» → {RATED[encoded.label]}", limit)

    def learns_to_stop(self, encoded: Rated) -> bool:
        """Whether any special token, such as the one that ends a turn, is among a good answer's."""
        good = RATED[encoded.label] == "true"
        return good and bool(set(encoded.completion_ids) & set(self._tokenizer.all_special_ids))

    def warnings(self) -> list[str]:
        """None."""
        return []
