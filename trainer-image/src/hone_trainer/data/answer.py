"""An answer after the prompt that a server asks with: its text as a model generates it, and its first token."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone_trainer.data.conversation import Conversation
from hone_trainer.data.marks import MarkedText, encode_part, last_mark, marked_text
from hone_trainer.data.sample import common_length
from hone_trainer.data.token_ids import Offsets, ids_and_offsets, token_ids
from hone_trainer.protocol.errors import RowFault

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHANGES_PROMPT = "the chat template changes the prompt once an answer follows"
HIDES_THOUGHTS = (
    "the chat template drops the reasoning (<think>) of an answer: use a template that shows it, or set "
    "spec.dataset.reasoning to Drop"
)
NO_BOUNDARY = "the tokens of the prompt change once an answer follows, and the answer has no tokens of its own"
_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Answered:
    """A conversation as text, parted where its answer begins.

    Attributes:
        text: prompt and answer.
        begin: index of the answer's first character.
        prompt: what a server asks with. The text begins with it, or what is served is not what was trained.
    """

    text: str
    begin: int
    prompt: str

    @property
    def continues(self) -> bool:
        """Whether the answer is what comes after the server's prompt."""
        return self.begin == len(self.prompt) and self.text.startswith(self.prompt)

    @property
    def opens_thoughts(self) -> bool:
        """Whether the server's prompt opens thoughts that the answer does not have."""
        return not self.continues and self.prompt.rstrip().endswith(_OPEN)


@dataclass(frozen=True)
class Tokens:
    """A text as numbers.

    Attributes:
        ids: its tokens.
        first: index of the answer's first token.
        offsets: returns the characters of each token, from the first to the one after the last.
        marks: what parts the text; None where only the offsets tell where a token stands.
    """

    ids: list[int]
    first: int
    offsets: Callable[[], Offsets]
    marks: MarkedText | None = None


def answered(
    tokenizer: "PreTrainedTokenizerBase", conversation: Conversation, start: int, template: str | None = None
) -> Answered:
    """A conversation with the answer that begins at a message.

    Args:
        tokenizer: the model's.
        conversation: prompt and answer.
        start: index of the answer's first message.
        template: what renders the conversation; None: the model's own template, which renders the prompt in any case.

    Raises:
        RowFault: the template rejects the conversation, hides something of it, or changes the prompt once an answer
            follows.
    """
    text = conversation.render(tokenizer, template)
    before = conversation.until(start)
    prompt = before.render(tokenizer, add_generation_prompt=True) if start else opening(tokenizer)
    if start == len(conversation.messages) - 1:
        text = _with_thoughts(conversation.messages[start]["content"], text, prompt)
    if text.startswith(prompt):
        return Answered(text, len(prompt), prompt)
    # The generation prompt may open thoughts that the answer does not have; the messages before it must not change.
    begin = common_length(prompt, text)
    if template is None and begin < len(before.render(tokenizer) if start else ""):
        raise RowFault(CHANGES_PROMPT)
    return Answered(text, begin, prompt)


def opening(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the template writes before the first turn of a conversation if that is the assistant's."""
    texts = [Conversation(({"role": "assistant", "content": word},)).render(tokenizer) for word in "ab"]
    return texts[0][: common_length(*texts)]


def hides_thoughts(content: str, text: str) -> bool:
    """Whether a text lacks the thoughts that an answer begins with."""
    thoughts, close, _ = content.rpartition(_CLOSE)
    return bool(close) and thoughts.strip().removeprefix(_OPEN).strip() not in text


def _with_thoughts(content: str, text: str, prompt: str) -> str:
    """The text of a conversation with the thoughts of its last answer, as the model is to generate them after the
    prompt; as it is if it shows them.

    Some templates drop the thoughts of every answer, because these are never part of a later prompt.

    Raises:
        RowFault: it cannot be told where they belong.
    """
    if not hides_thoughts(content, text):
        return text
    visible = content.rpartition(_CLOSE)[2].strip()
    end = text.rfind(visible) + len(visible)
    if not visible or end < len(visible) or prompt.rstrip().endswith(_CLOSE):
        raise RowFault(HIDES_THOUGHTS)
    answer = content.strip()
    if prompt.rstrip().endswith(_OPEN):
        answer = answer.removeprefix(_OPEN)
        answer = answer if prompt.endswith(_OPEN) else answer.lstrip()
    return prompt + answer + text[end:]


def encode_at(tokenizer: "PreTrainedTokenizerBase", text: str, begin: int) -> Tokens:
    """A text as tokens, of which the first ones are those of its first `begin` characters alone, as a server has them.

    Raises:
        RowFault: the rest of the text has no tokens of its own.
    """
    marked = marked_text(tokenizer, text)
    if marked and (first := marked.index_at(begin)) is not None:
        return Tokens(marked.ids, first, lambda: ids_and_offsets(tokenizer, text)[1], marked)
    ids, offsets = ids_and_offsets(tokenizer, text)
    mark = last_mark(tokenizer, text[:begin], ids, offsets)
    rest = encode_part(tokenizer, text[offsets[mark][0] if mark else 0 : begin])
    first = mark + len(rest)
    if tuple(ids[mark:first]) == rest:
        return Tokens(ids, first, lambda: offsets)
    # After a line break, so that no tokenizer puts the space before it with which a text begins; else, since a line
    # break may be joined with those that the answer begins with, alone.
    for lead in ("\n", ""):
        apart = _encode_apart(tokenizer, text, begin, lead)
        if str(tokenizer.decode(apart.ids)) == str(tokenizer.decode(ids)):
            return apart
    raise RowFault(NO_BOUNDARY)


def _encode_apart(tokenizer: "PreTrainedTokenizerBase", text: str, begin: int, lead: str) -> Tokens:
    """A text as tokens of its first `begin` characters and those of its rest, each alone, the rest after a `lead`."""
    head, before = ids_and_offsets(tokenizer, text[:begin])
    mark, moved = len(token_ids(tokenizer, lead, special=False)), begin - len(lead)
    tail, after = ids_and_offsets(tokenizer, lead + text[begin:])
    offsets = before + [(moved + low, moved + high) for low, high in after[mark:]]
    return Tokens(head + tail[mark:], len(head), lambda: offsets)


def carries_loss(tokens: Tokens, spans: Sequence[tuple[int, int]], *, last: bool) -> list[int]:
    """For each token 1 if it lies within one of the spans of characters, else 0.

    Args:
        tokens: of the whole text.
        spans: from the first character to the one after the last, in order.
        last: whether the last span begins with the answer's first token.
    """
    mask = [0] * len(tokens.ids)
    if tokens.marks and (parts := tokens.marks.parts(spans)) is not None:
        for first, after in parts:
            mask[first:after] = [1] * (after - first)
        return mask
    offsets = tokens.offsets()
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    in_order = starts == sorted(starts) and ends == sorted(ends)
    for low, high in spans:
        if in_order:
            first, after = bisect_left(starts, low), min(bisect_left(starts, high), bisect_right(ends, high))
            mask[first:after] = [1] * (after - first)
            continue
        for i, (start, end) in enumerate(offsets):
            if low <= start < high and end <= high:
                mask[i] = 1
    if last and spans:
        # By its index: some tokenizers leave the space before a word out of the word's offsets.
        low, high = spans[-1]
        for i in range(min(bisect_right(ends, low), bisect_left(starts, low)) if in_order else 0, len(starts)):
            start, end = offsets[i]
            if end > low or start >= low:
                mask[i] = int(i >= tokens.first and start < high and end <= high)
    return mask
