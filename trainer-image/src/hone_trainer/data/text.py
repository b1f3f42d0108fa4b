"""Prompts and answers as token ids: what every encoder needs of a tokenizer."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from hone_trainer.data.answer import answered, encode_at
from hone_trainer.data.conversation import Message
from hone_trainer.data.sample import Sample, common_length
from hone_trainer.data.token_ids import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def text_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Ids of a text with the special tokens that the tokenizer adds, as a server encodes a text."""
    return token_ids(tokenizer, text, special=True)


def ids_of(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Ids of a text without special tokens of the tokenizer's own: a chat template writes them itself."""
    return token_ids(tokenizer, text, special=False)


def opening_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Ids with the special tokens that open a text, without those that close it."""
    ids = text_ids(tokenizer, text)
    closes = ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(str(tokenizer.eos_token))
    return ids[:-1] if closes else ids


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", sample: Sample, start: int | None = None
) -> tuple[list[int], str]:
    """Ids and text of what comes before an answer, as a server would build them from the same request.

    Args:
        tokenizer: the model's.
        sample: the row.
        start: index of the answer's first message; None: of the completion's.

    Raises:
        RowFault: the chat template rejects the conversation.
    """
    if not sample.is_chat:
        return opening_ids(tokenizer, sample.prompt), sample.prompt
    prompt = sample.conversation.until(sample.completion_start if start is None else start)
    # The template as the model ships it, not a training variant: the model will be served with it.
    text = prompt.render(tokenizer, add_generation_prompt=True)
    return ids_of(tokenizer, text), text


def encode_answers(
    tokenizer: "PreTrainedTokenizerBase", sample: Sample, answers: Sequence[tuple[Message, ...] | str]
) -> tuple[list[int], list[list[int]]]:
    """Ids of a sample's prompt, and of each answer to it, with the token that ends a turn or text.

    The prompt's are those that a server asks with. Where the template opens thoughts that an answer does not have,
    they end before these.

    Raises:
        RowFault: the chat template rejects the conversation, or changes the prompt once an answer follows.
    """
    if not sample.is_chat:
        return encode_text_answers(tokenizer, sample.prompt, *map(str, answers))
    prompt = sample.conversation.until(sample.completion_start)
    # A sample holds its answers as it holds its prompt.
    turns = cast("Sequence[tuple[Message, ...]]", answers)
    whole = [answered(tokenizer, prompt.followed_by(turn), sample.completion_start) for turn in turns]
    if not all(answer.continues for answer in whole):
        heads = [ids_of(tokenizer, answer.text) for answer in whole]
        requested = ids_of(tokenizer, whole[0].prompt)
        end = min(common_length(requested, ids) for ids in heads)
        return requested[:end], [ids[end:] for ids in heads]
    tokens = [encode_at(tokenizer, answer.text, answer.begin) for answer in whole]
    return tokens[0].ids[: tokens[0].first], [each.ids[each.first :] for each in tokens]


def encode_text_answers(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, *answers: str
) -> tuple[list[int], list[list[int]]]:
    """Ids of a text prompt, and of each answer to it, with the token that ends a text.

    Prompt and answer are encoded as one text where that does not change the prompt's tokens, else separately.
    """
    head = opening_ids(tokenizer, prompt)
    end, tails = tokenizer.eos_token_id, []
    for answer in answers:
        whole = opening_ids(tokenizer, prompt + answer)
        tail = whole[len(head) :] if whole[: len(head)] == head else ids_of(tokenizer, answer)
        tails.append(tail if end is None or (tail and tail[-1] == end) else [*tail, end])
    return head, tails


def text_of(answer: tuple[Message, ...] | str) -> str:
    """An answer's text; of several turns the last one's, and where that has only tool calls, their JSON."""
    if isinstance(answer, str):
        return answer
    last = answer[-1]
    return str(last["content"] or json.dumps(last.get("tool_calls", ""), ensure_ascii=False))


def decoded(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    """The text of token ids, special tokens included."""
    # Its type allows a batch of rows, too, for which it returns a list.
    return str(tokenizer.decode(ids))
