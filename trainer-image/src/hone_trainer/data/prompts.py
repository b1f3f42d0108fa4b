"""From a prompt that the model answers itself to token ids, with the prompt as the row has it, and its references."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone_trainer.data.conversation import Message, require_template
from hone_trainer.data.rows import Column
from hone_trainer.data.sample import Sample
from hone_trainer.data.text import decoded, encode_prompt
from hone_trainer.protocol.errors import RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RawPrompt = str | list[Message]
"""A prompt as the row has it: a text or messages."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as numbers, with the prompt and references of the row.

    Attributes:
        prompt_ids: as a server would build them from the same request.
        prompt: the prompt as the row has it.
        references: what an answer is compared to.
        room: tokens that an answer may have.
    """

    prompt_ids: list[int]
    prompt: RawPrompt
    references: tuple[str, ...]
    room: int

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.prompt_ids) + self.room

    @property
    def first_trained(self) -> int:
        """0: no prompt is cut, since `PromptEncoder.encode` rejects those that are too long."""
        return 0

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {
            "prompt_ids": self.prompt_ids,
            "written": json.dumps(self.prompt, ensure_ascii=False),
            "references": json.dumps(self.references, ensure_ascii=False),
        }


class PromptEncoder:
    """Turns prompts into ids, and stores them as the rows have them, too.

    Args:
        tokenizer: the model's.
        chat: whether there are conversations among the samples.
        room: most tokens that an answer may have.
        limit: most tokens of prompt and answer together.
        train_on: what is trained on, for `status.dataset`.
        compares: the reward function that needs a reference in every row; None if no function does.

    Raises:
        BadInput: the tokenizer lacks a chat template.
    """

    COLUMNS: ClassVar[dict[str, Column]] = {"prompt_ids": Column.IDS, "written": Column.TEXT, "references": Column.TEXT}
    NEIGHBORS: ClassVar[dict[str, str]] = {}
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
        self.notes = Counter[str]()
        self._room, self._limit = room, limit
        self.train_on = train_on
        self._compares = compares

    def encode(self, sample: Sample) -> EncodedPrompt:
        """Ids of the prompt.

        Raises:
            RowFault: the chat template rejects the conversation, the prompt leaves too few tokens for the longest
                answer, or a reference is missing that a reward function needs.
        """
        if sample.tools or any(message["role"] == "tool" for message in sample.messages):
            raise RowFault("the row has tools, but the model writes the answers itself here, without calling them")
        if self._compares and not sample.references:
            raise RowFault(
                f"no `reference`, but the reward function {self._compares} compares answers with it: name its column "
                "in spec.dataset.columns, such as reference: answer"
            )
        ids, _ = encode_prompt(self._tokenizer, sample)
        if not ids:
            raise RowFault("`prompt` has no tokens")
        if len(ids) + self._room > self._limit:
            raise RowFault(
                f"the prompt is too long: of {self._limit} tokens, {self._room} are reserved for the answer, which "
                f"leaves {max(0, self._limit - self._room)} for the prompt"
            )
        prompt: RawPrompt = list(sample.messages[: sample.completion_start]) if sample.is_chat else sample.prompt
        return EncodedPrompt(ids, prompt, sample.references, self._room)

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """No column: prompts are not cut."""
        return {}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text of what is answered."""
        return encode_prompt(self._tokenizer, sample)

    def reference(self, sample: Sample) -> str:
        """The first of the references; empty without any."""
        return next(iter(sample.references), "")

    def decode(self, encoded: EncodedPrompt, limit: int) -> str:
        """The prompt as text of at most `limit` characters."""
        return clip(decoded(self._tokenizer, encoded.prompt_ids), limit)

    def learns_to_stop(self, encoded: EncodedPrompt) -> bool:
        """True: the model stops by itself, or learns to where that is rewarded."""
        return True

    def warnings(self) -> list[str]:
        """None."""
        return []


def load_prompt(column: str) -> RawPrompt:
    """A prompt from the column `written` of prepared data."""
    prompt: RawPrompt = json.loads(column)
    return prompt


def reward_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prepared rows as reward functions take them: `prompt` as the user's row has it, and `reference`.

    The reference is a string, a list of them where there are several, or None.
    """
    return [{"prompt": load_prompt(row["written"]), "reference": load_reference(row["references"])} for row in rows]


def load_reference(column: str) -> str | list[str] | None:
    """A row's reference from the column `references` of prepared data."""
    references: list[str] = json.loads(column)
    return references if len(references) > 1 else next(iter(references), None)
