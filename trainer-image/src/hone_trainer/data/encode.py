"""From a Sample to token ids and labels: the chat template, and which tokens carry loss.

What marks the assistant's tokens, the first that applies: the `{% generation %}` blocks of the template; the difference
between the text before and after each assistant turn; if the template changes a turn once others follow (Qwen3's does),
TRL's training variant of the template, if TRL has one. A turn whose thoughts are dropped once others follow is not what
the model would generate: it carries no loss. If nothing marks the tokens, that is an error: TRL would train on the
user's words, too.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jinja2 import TemplateError

from hone.contract.settings import TrainOn
from hone_trainer.data.conversation import Conversation, require_template
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.data.rows import Column
from hone_trainer.data.sample import Sample, common_length
from hone_trainer.data.text import decoded, encode_text_answers, ids_of, opening_ids
from hone_trainer.protocol.errors import BadInput, RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNMARKABLE = "the chat template does not tell where an assistant turn begins and ends"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Encoded:
    """A row as numbers; `labels` is as long as `input_ids`, -100 where there is no loss."""

    input_ids: list[int]
    labels: list[int]

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.input_ids)

    @property
    def first_trained(self) -> int:
        """Index of the first token that carries loss."""
        return next(i for i, label in enumerate(self.labels) if label != IGNORE_INDEX)

    def columns(self) -> dict[str, Any]:
        """The row's columns in prepared data."""
        return {"input_ids": self.input_ids, "labels": self.labels}


class Encoder:
    """Turns samples into ids and labels with one tokenizer.

    Args:
        tokenizer: a fast tokenizer, with a chat template if there are conversations.
        train_on: which tokens carry loss. Completion means, for conversations, the assistant turns of the completion
            (of `messages`: the last one).
        chat: whether there are conversations among the samples.

    Raises:
        BadInput: the tokenizer lacks what these samples need.
    """

    COLUMNS: ClassVar[dict[str, Column]] = {"input_ids": Column.IDS, "labels": Column.LABELS}
    NEIGHBORS: ClassVar[dict[str, str]] = {}
    classes = None

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", train_on: TrainOn, chat: bool) -> None:
        self._tokenizer = tokenizer
        self._train_on = train_on
        self.train_on = train_on.value
        self._template: str | None = None
        self._left_out = 0
        self.marks = "none"
        if not tokenizer.is_fast:
            raise BadInput(
                "spec.model",
                f"its tokenizer {type(tokenizer).__name__} is a slow tokenizer, without character offsets",
                "Save the tokenizer with its tokenizer.json (save_pretrained of a fast tokenizer).",
            )
        if chat:
            self._choose_template()

    def encode(self, sample: Sample) -> Encoded:
        """Ids and labels of a sample.

        Raises:
            RowFault: the template rejects the conversation, or no token of it would carry loss.
        """
        ids, mask = self._conversation(sample) if sample.is_chat else self._text(sample)
        if self._train_on is TrainOn.ALL:
            mask = [1] * len(ids)
        if 1 not in mask:
            raise RowFault("no token carries loss: the chat template marks no text as the assistant's")
        return Encoded(ids, [token if used else IGNORE_INDEX for token, used in zip(ids, mask, strict=True)])

    def cut(self, row: dict[str, Any], limit: int) -> dict[str, Any]:
        """The first `limit` tokens of a row, with their labels."""
        return {column: row[column][:limit] for column in self.COLUMNS}

    def prompt(self, sample: Sample) -> tuple[list[int], str]:
        """Ids and text that the answer is generated from, as a server would build them from the same request."""
        if not sample.is_chat:
            return opening_ids(self._tokenizer, sample.prompt), sample.prompt
        # The template as the model ships it, not a training variant: that is what it will be served with.
        conversation = sample.conversation.until(sample.last_assistant)
        text = conversation.render(self._tokenizer, add_generation_prompt=True)
        return ids_of(self._tokenizer, text), text

    def reference(self, sample: Sample) -> str:
        """The text that an answer is compared to."""
        return sample.messages[sample.last_assistant]["content"] if sample.is_chat else sample.completion

    def decode(self, encoded: Encoded, limit: int) -> str:
        """The row as text of at most `limit` characters, with «» around what carries loss."""
        parts, start = [], 0
        used = [label != IGNORE_INDEX for label in encoded.labels]
        for end in range(1, len(used) + 1):
            if end == len(used) or used[end] != used[start]:
                text = decoded(self._tokenizer, encoded.input_ids[start:end])
                parts.append(f"«{text}»" if used[start] else text)
                start = end
        return clip("".join(parts), limit)

    def learns_to_stop(self, encoded: Encoded) -> bool:
        """Whether any special token, such as the one that ends a turn, carries loss."""
        return bool(set(encoded.labels) & set(self._tokenizer.all_special_ids))

    def warnings(self) -> list[str]:
        """How many answers carry no loss although the user's choice includes them."""
        if not self._left_out:
            return []
        return [
            f"{self._left_out} answers carry no loss, because the chat template changes an answer when more turns "
            "follow, for example by removing its reasoning. To train on them, make each the last answer of a row."
        ]

    def _choose_template(self) -> None:
        template = require_template(self._tokenizer)
        if self._train_on is TrainOn.ALL:
            return
        if _GENERATION.search(template):
            self._template, self.marks = template, "template"
            return
        self.marks = "prefix"
        # The last answer is rendered as it is generated: only earlier ones may need a variant.
        whole = self._train_on is TrainOn.COMPLETION or self._keeps_prefixes()
        if not whole and (variant := _training_variant(self._tokenizer)):
            self._template, self.marks = variant, "training variant"

    def _keeps_prefixes(self) -> bool:
        """Whether the template renders the first turns of a conversation as it renders them alone."""
        sample = Sample(messages=({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}) * 2)
        try:
            return len(self._spans(sample, sample.conversation.render(self._tokenizer))) == 2
        except RowFault:
            return False

    def _conversation(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Ids of a conversation, and 1 for each that carries loss, else 0."""
        # Also where the marks give the ids: this finds what the template hides.
        full = sample.conversation.render(self._tokenizer, self._template)
        if self._train_on is TrainOn.ALL:
            ids = ids_of(self._tokenizer, full)
            return ids, [1] * len(ids)
        if self._template is None:
            return self._from_prefixes(sample, full)
        return self._from_marks(sample, self._template)

    def _from_marks(self, sample: Sample, template: str) -> tuple[list[int], list[int]]:
        ids, mask = sample.conversation.encode_marked(self._tokenizer, template)
        if self._train_on is TrainOn.COMPLETION:
            prompt = sample.conversation.until(sample.completion_start)
            head = ids_of(self._tokenizer, prompt.render(self._tokenizer, template, add_generation_prompt=True))
            if ids[: len(head)] != head:
                raise RowFault(UNMARKABLE)
            mask[: len(head)] = [0] * len(head)
        return ids, mask

    def _from_prefixes(self, sample: Sample, full: str) -> tuple[list[int], list[int]]:
        spans = self._spans(sample, full)
        self._left_out += len(self._trained_turns(sample)) - len(spans)
        encoded = self._tokenizer(full, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets: list[tuple[int, int]] = encoded["offset_mapping"]
        mask = [int(any(low <= start < high and end <= high for low, high in spans)) for start, end in offsets]
        return list(encoded["input_ids"]), mask

    def _trained_turns(self, sample: Sample) -> list[int]:
        """The assistant's turns that are to carry loss, by index."""
        start = sample.completion_start if self._train_on is TrainOn.COMPLETION else 0
        return [i for i, turn in enumerate(sample.messages) if turn["role"] == "assistant" and i >= start]

    def _spans(self, sample: Sample, full: str) -> list[tuple[int, int]]:
        """Where the assistant's turns that carry loss begin and end in the text of the whole conversation."""
        spans = []
        for i in self._trained_turns(sample):
            after = self._render(sample.conversation.until(i + 1))
            if i < sample.last_assistant and not full.startswith(after):
                continue
            before = sample.conversation.until(i)
            context = self._render(before)
            prompt = self._render(before, add_generation_prompt=True)
            # The generation prompt may open thoughts that the turn does not have.
            begin = len(prompt) if after.startswith(prompt) else common_length(prompt, after)
            if begin < len(context) or not full.startswith(after):
                raise RowFault(UNMARKABLE)
            # What follows the token that ends a turn, a line break mostly, is never generated: no loss on it.
            spans.append((begin, len(after.rstrip())))
        return spans

    def _text(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Prompt and completion as one text where that keeps the prompt's tokens, else one after the other."""
        head, (tail,) = encode_text_answers(self._tokenizer, sample.prompt, sample.completion)
        return head + tail, [0] * len(head) + [1] * len(tail)

    def _render(self, conversation: Conversation, *, add_generation_prompt: bool = False) -> str:
        """A part of a conversation by the model's own template; empty if no message comes before it."""
        if not conversation.messages:
            return ""
        return conversation.render(self._tokenizer, add_generation_prompt=add_generation_prompt)


def _training_variant(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """TRL's variant of the tokenizer's template with generation marks, or None where TRL does not know it."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        return get_training_chat_template(tokenizer)
    except (ValueError, TemplateError, TypeError):
        return None
