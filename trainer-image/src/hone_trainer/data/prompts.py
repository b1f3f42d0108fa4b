"""From a prompt whose answer the model writes itself to token ids, the prompt as it was written, and its references."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.formats import Message, Sample
from hone_trainer.data.pairs import asked_of
from hone_trainer.data.rows import Column
from hone_trainer.data.text import require_template
from hone_trainer.protocol.errors import RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Written = str | list[Message]
"""A prompt as it was written: a text or a conversation."""


@dataclass(frozen=True)
class Asked:
    """A prompt as numbers, with what it was made from.

    Attributes:
        prompt_ids: as a server would build them from the same request.
        written: the prompt as it was written.
        references: what an answer is compared to.
        room: tokens that an answer may have.
    """

    prompt_ids: list[int]
    written: Written
    references: tuple[str, ...]
    room: int

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.prompt_ids) + self.room

    @property
    def first_trained(self) -> int:
        """0: no prompt is too long, since `PromptEncoder.encode` refuses these."""
        return 0

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {
            "prompt_ids": self.prompt_ids,
            "written": json.dumps(self.written, ensure_ascii=False),
            "references": json.dumps(self.references, ensure_ascii=False),
        }


class PromptEncoder:
    """Turns prompts into ids, and keeps them as they were written.

    Args:
        tokenizer: the model's.
        chat: whether there are conversations among the samples.
        room: most tokens that an answer may have.
        limit: most tokens of prompt and answer together.
        train_on: what is trained on, for `status.dataset`.
        compares: what needs a reference in every row, by name; None where nothing does.

    Raises:
        BadInput: the tokenizer lacks a chat template.
    """

    COLUMNS: ClassVar = {"prompt_ids": Column.IDS, "written": Column.TEXT, "references": Column.TEXT}
    NEIGHBORS: ClassVar = {}
    marks = "prompt"
    classes = None

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        chat: bool,
        *,
        room: int,
        limit: int,
        train_on: str,
        compares: str | None = None,
    ) -> None:
        if chat:
            require_template(tokenizer)
        self._tokenizer = tokenizer
        self._room, self._limit = room, limit
        self.train_on = train_on
        self._compares = compares

    def encode(self, sample: Sample) -> Asked:
        """Ids of the prompt.

        Raises:
            RowFault: the chat template refuses the conversation, the prompt leaves no room for the longest answer, or
                there is no reference where one is needed.
        """
        if self._compares and not sample.references:
            raise RowFault(f"no `reference`, which {self._compares} compares the answer to")
        ids, _ = asked_of(self._tokenizer, sample)
        if not ids:
            raise RowFault("`prompt` gives no token")
        if len(ids) + self._room > self._limit:
            raise RowFault(
                f"the prompt is too long: {self._limit} tokens less {self._room} for the answer leave it "
                f"{max(0, self._limit - self._room)}"
            )
        written = list(sample.messages[: sample.completion_start]) if sample.is_chat else sample.prompt
        return Asked(ids, written, sample.references, self._room)

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The row as it is: no prompt is cut."""
        return {}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what is answered."""
        return asked_of(self._tokenizer, sample)

    def reference(self, sample: Sample) -> str:
        """The first of the references; empty without any."""
        return next(iter(sample.references), "")

    def decode(self, encoded: Asked, limit: int) -> str:
        """The prompt as text of at most `limit` characters."""
        return clip(self._tokenizer.decode(encoded.prompt_ids), limit)

    def learns_to_stop(self, encoded: Asked) -> bool:
        """True: the model stops by itself, or learns to where that is rewarded."""
        return True

    def warnings(self) -> list[str]:
        """None."""
        return []


def written_of(text: str) -> Written:
    """A prompt from its column in prepared data."""
    written: Written = json.loads(text)
    return written


def as_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prepared rows as rewards are called with them: `prompt` as it was written, and `reference`.

    The reference is a string, a list of them where there are several, or None.
    """
    return [{"prompt": written_of(row["written"]), "reference": reference_of(row["references"])} for row in rows]


def reference_of(references: str) -> str | list[str] | None:
    """A row's reference from its column in prepared data."""
    found: list[str] = json.loads(references)
    return found if len(found) > 1 else next(iter(found), None)
