"""Row formats: telling them apart, and turning a row into a Sample or into the reason why it cannot be one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.read import RowFault

ROLES = ("system", "developer", "user", "assistant")

COLUMNS: dict[DataFormat, tuple[str, ...]] = {
    DataFormat.MESSAGES: ("messages",),
    DataFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DataFormat.TEXT_LABEL: ("text", "label"),
}
"""The columns that each format needs. Others are left alone."""

DEFAULT_TRAIN_ON = {DataFormat.MESSAGES: TrainOn.ASSISTANT, DataFormat.PROMPT_COMPLETION: TrainOn.COMPLETION}

EXAMPLES = {
    DataFormat.MESSAGES: '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    DataFormat.PROMPT_COMPLETION: '{"prompt": "…", "completion": "…"}',
    DataFormat.TEXT_LABEL: '{"text": "…", "label": "…"}',
}

MAX_LABEL = 128
"""Most characters of a class's name."""

Message = dict[str, str]


@dataclass(frozen=True)
class Sample:
    """One row, checked.

    Attributes:
        messages: the conversation; empty for plain text.
        completion_start: index of the first message of the completion.
        prompt: plain text that is given, or that has a class; empty for a conversation.
        completion: plain text that is to follow.
        label: the class of the text; None where there are no classes. A number sorts as one.
    """

    messages: tuple[Message, ...] = ()
    completion_start: int = 0
    prompt: str = ""
    completion: str = ""
    label: str | int | None = None

    @property
    def is_chat(self) -> bool:
        """Whether this is a conversation, not plain text."""
        return bool(self.messages)

    @property
    def last_assistant(self) -> int:
        """Index of the last assistant turn."""
        return max(i for i, message in enumerate(self.messages) if message["role"] == "assistant")


def detect(row: dict[str, Any]) -> DataFormat | None:
    """The format whose columns a row has, or None. A row that has both counts as messages."""
    return next((format for format, columns in COLUMNS.items() if all(c in row for c in columns)), None)


def to_sample(row: dict[str, Any], format: DataFormat) -> Sample:
    """The row as a Sample.

    Raises:
        RowFault: a column is missing, of the wrong type or empty, or there is nothing to train on.
    """
    for column in COLUMNS[format]:
        if column not in row:
            raise RowFault(f"no column `{column}`")
    if row.get("tools"):
        raise RowFault("`tools` is set: tool calls are not supported")
    return _READERS[format](row)


def _from_messages(row: dict[str, Any]) -> Sample:
    messages = _messages(row["messages"], "messages")
    if not any(message["role"] == "assistant" for message in messages):
        raise RowFault("no assistant turn in `messages`")
    sample = Sample(messages=messages)
    if sample.last_assistant == 0:
        raise RowFault("nothing before the assistant's turn in `messages`")
    return Sample(messages=messages, completion_start=sample.last_assistant)


def _from_prompt_completion(row: dict[str, Any]) -> Sample:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if not prompt.strip():
            raise RowFault("`prompt` is empty")
        if not completion.strip():
            raise RowFault("`completion` is empty")
        return Sample(prompt=prompt, completion=completion)
    if isinstance(prompt, list) and isinstance(completion, list):
        head, tail = _messages(prompt, "prompt"), _messages(completion, "completion")
        if not any(message["role"] == "assistant" for message in tail):
            raise RowFault("no assistant turn in `completion`")
        return Sample(messages=head + tail, completion_start=len(head))
    raise RowFault("`prompt` and `completion` must both be strings or both be lists of messages")


def _from_text_label(row: dict[str, Any]) -> Sample:
    text, label = row["text"], row["label"]
    if not isinstance(text, str):
        raise RowFault("`text` is not a string")
    if not text.strip():
        raise RowFault("`text` is empty")
    # A boolean is an integer to Python, but hardly a class's name to its author.
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise RowFault("`label` is neither a string nor an integer")
    label = label.strip() if isinstance(label, str) else label
    if label == "":
        raise RowFault("`label` is empty")
    if len(str(label)) > MAX_LABEL:
        raise RowFault(f"`label` has more than {MAX_LABEL} characters, too many for the name of a class")
    return Sample(prompt=text, label=label)


_READERS: dict[DataFormat, Callable[[dict[str, Any]], Sample]] = {
    DataFormat.MESSAGES: _from_messages,
    DataFormat.PROMPT_COMPLETION: _from_prompt_completion,
    DataFormat.TEXT_LABEL: _from_text_label,
}


def _messages(value: Any, column: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RowFault(f"`{column}` is not a list of messages")
    if not value:
        raise RowFault(f"`{column}` is empty")
    return tuple(_message(item, column) for item in value)


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, dict) or "role" not in item or "content" not in item:
        raise RowFault(f"`{column}` holds something that is not a message with `role` and `content`")
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise RowFault(f"`{column}` has a role other than {', '.join(ROLES)}")
    if item.get("tool_calls"):
        raise RowFault(f"`{column}` has tool calls, which are not supported")
    if not isinstance(content, str):
        raise RowFault(f"`{column}` has a message whose `content` is not a string")
    if role == "assistant" and not content.strip():
        raise RowFault(f"`{column}` has an empty assistant turn")
    return {"role": role, "content": content}
