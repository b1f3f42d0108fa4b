"""A row of the user's data once it is checked, the same for every format."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hone_trainer.data.conversation import Conversation, Message
from hone_trainer.data.label_values import Label


@dataclass(frozen=True)
class Sample:
    """One row, checked.

    Attributes:
        messages: the conversation; empty for plain text.
        completion_start: index of the first message of the completion.
        prompt: the prompt as plain text, or a text that is learned whole or has a class; empty for a conversation.
        completion: the answer as plain text; of two answers the better one.
        rejected: the worse one of two answers, as text or messages; empty where there is one answer.
        label: the class of the text, all its classes where it may have several, or whether the completion is good
            (`RATED`); None where there are no classes. A number sorts as one.
        references: what an answer that the model writes itself is compared to; empty where nothing is.
        tools: the tools that the assistant may call.
        untrained: the assistant's turns that carry no loss by the row's own choice, by index.
        whole: whether `prompt` is a text of its own, to which nothing answers.
    """

    messages: tuple[Message, ...] = ()
    completion_start: int = 0
    prompt: str = ""
    completion: str = ""
    rejected: "tuple[Message, ...] | str" = ""
    label: Label | None = None
    references: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    untrained: frozenset[int] = frozenset()
    whole: bool = field(default=False, compare=False)

    @property
    def conversation(self) -> Conversation:
        """Its messages as a conversation: the prompt and, of two answers, the better one."""
        return Conversation(self.messages, self.tools)

    @property
    def is_chat(self) -> bool:
        """Whether this is a conversation, not plain text."""
        return bool(self.messages)

    def all_messages(self) -> tuple[Message, ...]:
        """Its messages, those of a worse answer included; none where it is plain text."""
        return self.messages if isinstance(self.rejected, str) else (*self.messages, *self.rejected)

    def parts(self) -> list[object]:
        """All that the row holds, to compare rows by. Parts that a row lacks are left out: its key stays."""
        label = [] if self.label is None else [self.label]
        rejected = [{"rejected": self.rejected}] if self.rejected else []
        references = [{"references": self.references}] if self.references else []
        untrained = [{"untrained": sorted(self.untrained)}] if self.untrained else []
        tools = [{"tools": self.tools}] if self.tools else []
        return [self.messages, self.prompt, self.completion, *label, *rejected, *references, *untrained, *tools]

    def outline(self) -> str:
        """Its parts in their order, each with its length in characters, and none of their text."""
        parts = [(message["role"], message["content"]) for message in self.messages]
        parts += [("text" if self.whole else "prompt", self.prompt), ("completion", self.completion)]
        if isinstance(self.rejected, str):
            parts.append(("rejected", self.rejected))
        else:
            parts += [(f"rejected {message['role']}", message["content"]) for message in self.rejected]
        parts += [("reference", reference) for reference in self.references]
        return ", ".join(f"{name} ({len(text)})" for name, text in parts if text)

    @property
    def answer_start(self) -> int:
        """Index of the first message of what is tested: the last assistant turn, or all of a rated answer.

        Where there is no answer, as many as there are messages.
        """
        rated = bool(self.rejected) or self.label is not None
        unanswered = self.completion_start == len(self.messages)
        return self.completion_start if rated or unanswered else self.last_assistant

    @property
    def last_assistant(self) -> int:
        """Index of the last assistant turn that may carry loss."""
        answers = (i for i, message in enumerate(self.messages) if message["role"] == "assistant")
        return max(i for i in answers if i not in self.untrained)


def with_system_prompt(sample: Sample, prompt: str | None) -> Sample:
    """A conversation that has no system message with this one; any other row as it is."""
    if prompt is None or not sample.is_chat or any(m["role"] in ("system", "developer") for m in sample.messages[:1]):
        return sample
    return replace(
        sample,
        messages=({"role": "system", "content": prompt}, *sample.messages),
        completion_start=sample.completion_start + 1,
        untrained=frozenset(i + 1 for i in sample.untrained),
    )


def common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items both begin with."""
    shorter = min(len(first), len(second))
    return next((i for i in range(shorter) if first[i] != second[i]), shorter)
