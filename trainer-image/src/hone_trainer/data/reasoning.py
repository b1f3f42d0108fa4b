"""The reasoning of answers: removed from a row, or from an answer that is compared."""

import re
from dataclasses import replace

from hone_trainer.data.conversation import REASONING, Message
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import RowFault

_THOUGHTS = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
_END = "</think>"


def visible(answer: str) -> str:
    """An answer without its reasoning and without white space at both ends. Where the prompt opens the reasoning, the
    answer only closes it."""
    return answer.rpartition(_END)[2].strip()


def without_reasoning(sample: Sample) -> Sample:
    """A row whose answers have no reasoning.

    Raises:
        RowFault: nothing is left of an answer.
    """
    rejected = sample.rejected
    return replace(
        sample,
        messages=_without(sample.messages),
        completion=_bare(sample.completion),
        rejected=_bare(rejected) if isinstance(rejected, str) else _without(rejected),
    )


def _without(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(
        {**{key: held for key, held in message.items() if key != REASONING}, "content": _bare(message["content"])}
        if message["role"] == "assistant"
        else message
        for message in messages
    )


def _bare(answer: str) -> str:
    bare = _THOUGHTS.sub("", answer, count=1) if _THOUGHTS.match(answer) else answer
    if answer and not bare.strip():
        raise RowFault("an answer has nothing but its reasoning, and spec.dataset.reasoning is Drop")
    return bare
