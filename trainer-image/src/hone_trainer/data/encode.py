"""From a Sample to token ids and labels: the chat template, and which tokens carry loss.

What marks the assistant's tokens, the first that applies: the `{% generation %}` blocks of the template; the difference
between the text before and after each assistant turn; if the template changes a turn once others follow (Qwen3's does),
TRL's training variant of the template, if TRL has one. A turn whose thoughts are dropped once others follow is not what
the model would generate: it carries no loss. If nothing marks the tokens, that is an error: TRL would train on the
user's words, too.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jinja2 import TemplateError

from hone.contract.settings import TrainOn
from hone_trainer.data.answer import Answered, answered, carries_loss, encode_at, hides_thoughts
from hone_trainer.data.conversation import require_template
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.data.rows import Column
from hone_trainer.data.sample import Sample
from hone_trainer.data.text import decoded, encode_prompt, encode_text_answers, ids_of
from hone_trainer.protocol.errors import BadInput, RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNMARKABLE = "the chat template does not tell where an assistant turn begins and ends"
LEFT_OUT = (
    "{} answers carry no loss, because the chat template changes an answer when more turns follow, for example by "
    "removing its reasoning. To train on them, make each the last answer of a row."
)
OPENS_THOUGHTS = (
    "In {} rows the answer has no thoughts, but the model's chat template (chat_template) ends a server's prompt with "
    "<think>: what is served is not what was trained. Write the thoughts into the answers, or use a template that does "
    "not open them."
)
SHOWN_OTHERWISE = (
    "In {} rows the text before the last answer is not what a server asks with, because the model's chat template "
    "(chat_template) shows earlier turns in another way than training must, for example without <think></think>. To "
    "train on what is served, make each answer the last one of a row."
)
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
        self.notes = Counter[str]()
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
        if sample.untrained and self._train_on is TrainOn.ALL:
            raise RowFault("a turn has weight 0, but spec.dataset.trainOn is All")
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
        return encode_prompt(self._tokenizer, sample, sample.last_assistant if sample.is_chat else 0)

    def reference(self, sample: Sample) -> str:
        """The text that an answer is compared to: of tool calls as the template writes them."""
        if not sample.is_chat:
            return sample.completion
        message = sample.messages[sample.last_assistant]
        if "tool_calls" not in message:
            return str(message["content"])
        whole = sample.conversation.until(sample.last_assistant + 1)
        turn = answered(self._tokenizer, whole, sample.last_assistant)
        ids = ids_of(self._tokenizer, turn.text[turn.begin :])
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

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
        """How many answers carry no loss although the user's choice includes them, or are learned after another prompt
        than the one that a server asks with."""
        return [sentence.format(count) for sentence, count in self.notes.items() if count]

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
            turn = answered(self._tokenizer, sample.conversation, sample.last_assistant)
            return turn.text.startswith(sample.conversation.until(2).render(self._tokenizer))
        except RowFault:
            return False

    def _conversation(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Ids of a conversation, and 1 for each that carries loss, else 0."""
        turn = answered(self._tokenizer, sample.conversation, sample.last_assistant, self._template)
        if not turn.continues:
            self.notes[OPENS_THOUGHTS if turn.opens_thoughts else SHOWN_OTHERWISE] += 1
        tokens = encode_at(self._tokenizer, turn.text, turn.begin if turn.continues else 0)
        if self._train_on is TrainOn.ALL:
            return tokens.ids, [1] * len(tokens.ids)
        spans = self._spans(sample, turn) if self._template is None else self._marked(sample, self._template, turn)
        return tokens.ids, carries_loss(tokens, spans, last=turn.continues)

    def _marked(self, sample: Sample, template: str, turn: Answered) -> list[tuple[int, int]]:
        """Where the turns that carry loss begin and end, by the template's marks."""
        text, blocks = sample.conversation.render_marked(self._tokenizer, template)
        answers = [i for i, message in enumerate(sample.messages) if message["role"] == "assistant"]
        if len(blocks) == len(answers):
            by_turn = dict(zip(answers, blocks, strict=True))
            blocks = [by_turn[i] for i in self._trained_turns(sample)]
        elif sample.untrained:
            raise RowFault(UNMARKABLE)
        elif self._train_on is TrainOn.COMPLETION:
            start = self._completion_begin(sample, template, text)
            blocks = [(low, high) for low, high in blocks if low >= start]
        if not blocks or not turn.continues:
            return blocks
        *earlier, (low, high) = blocks
        if turn.text != text:
            high = len(turn.text.rstrip())
        # The marks may include the header of a turn, or leave out what the model must write first.
        header, lead = text[low : turn.begin], text[turn.begin : low]
        moved = [
            (a + len(header), b) if header and text[a:b].startswith(header) else (a - len(lead), b) for a, b in earlier
        ]
        return [*moved, (turn.begin, high)]

    def _completion_begin(self, sample: Sample, template: str, text: str) -> int:
        prompt = sample.conversation.until(sample.completion_start)
        before = prompt.render(self._tokenizer, template, add_generation_prompt=True)
        if not text.startswith(before):
            raise RowFault(UNMARKABLE)
        return len(before)

    def _trained_turns(self, sample: Sample) -> list[int]:
        """The assistant's turns that are to carry loss, by index."""
        start = sample.completion_start if self._train_on is TrainOn.COMPLETION else 0
        answers = (i for i, turn in enumerate(sample.messages) if turn["role"] == "assistant")
        return [i for i in answers if i >= start and i not in sample.untrained]

    def _spans(self, sample: Sample, turn: Answered) -> list[tuple[int, int]]:
        """Where the turns that carry loss begin and end in the text of the whole conversation."""
        spans = []
        *earlier, last = self._trained_turns(sample)
        for i in earlier:
            part = sample.conversation.until(i + 1)
            after = part.render(self._tokenizer)
            if not turn.text.startswith(after) or hides_thoughts(sample.messages[i]["content"], after):
                self.notes[LEFT_OUT] += 1
                continue
            spans.append((answered(self._tokenizer, part, i).begin, len(after.rstrip())))
        end = len(turn.text)
        if last < len(sample.messages) - 1:
            after = sample.conversation.until(last + 1).render(self._tokenizer)
            if not turn.text.startswith(after):
                raise RowFault(UNMARKABLE)
            end = len(after)
        # What follows the token that ends a turn, a line break mostly, is never generated: no loss on it.
        return [*spans, (turn.begin, len(turn.text[:end].rstrip()))]

    def _text(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Prompt and completion as one text where that keeps the prompt's tokens, else one after the other."""
        head, (tail,) = encode_text_answers(self._tokenizer, sample.prompt, sample.completion)
        return head + tail, [0] * len(head) + [1] * len(tail)


def _training_variant(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """TRL's variant of the tokenizer's template with generation marks, or None where TRL does not know it."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        return get_training_chat_template(tokenizer)
    except (ValueError, TemplateError, TypeError):
        return None
