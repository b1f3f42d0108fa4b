"""Row formats: telling them apart, and turning a row into a Sample or into the reason why it cannot be one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.read import RowFault

ROLES = ("system", "developer", "user", "assistant")

COLUMNS: dict[DataFormat, tuple[str, ...]] = {
    DataFormat.MESSAGES: ("messages",),
    DataFormat.SHARE_GPT: ("conversations",),
    DataFormat.ALPACA: ("instruction", "output"),
    DataFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DataFormat.TEXT_LABEL: ("text", "label"),
}
"""The columns that each format needs. Others are left alone."""

OPTIONAL_COLUMNS = ("input", "system")
"""Columns that some formats use where they are there."""

DEFAULT_TRAIN_ON = {
    DataFormat.MESSAGES: TrainOn.ASSISTANT,
    DataFormat.SHARE_GPT: TrainOn.ASSISTANT,
    DataFormat.ALPACA: TrainOn.ASSISTANT,
    DataFormat.PROMPT_COMPLETION: TrainOn.COMPLETION,
}

EXAMPLES = {
    DataFormat.MESSAGES: '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    DataFormat.PROMPT_COMPLETION: '{"prompt": "…", "completion": "…"}',
    DataFormat.SHARE_GPT: '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
    DataFormat.ALPACA: '{"instruction": "…", "input": "…", "output": "…"}',
    DataFormat.TEXT_LABEL: '{"text": "…", "label": "…"}',
}

_SENDERS = {"human": "user", "gpt": "assistant", "system": "system"}
"""ShareGPT's names of the roles."""

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
    """The format whose columns a row has, or None; the first of several. A column without a value does not count:
    tables have every column in every row."""
    found = {column for column, value in row.items() if value is not None}
    return next((format for format, columns in COLUMNS.items() if found.issuperset(columns)), None)


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
    return _conversation(_messages(row["messages"], "messages"), "messages")


def _from_share_gpt(row: dict[str, Any]) -> Sample:
    turns = row["conversations"]
    if not isinstance(turns, list):
        raise RowFault("`conversations` is not a list of turns")
    if not turns:
        raise RowFault("`conversations` is empty")
    if all(isinstance(turn, dict) and "role" in turn for turn in turns):
        raise RowFault("`conversations` has turns with `role`: name it in spec.dataset.columns, as `messages`")
    return _conversation((*_system(row), *(_turn(turn) for turn in turns)), "conversations")


def _from_alpaca(row: dict[str, Any]) -> Sample:
    # One turn each, so that the model is asked as its chat template asks; joined as LLaMA-Factory joins them.
    asked = "\n".join(text for text in (_text(row, "instruction"), _text(row, "input", "")) if text.strip())
    output = _text(row, "output")
    if not asked:
        raise RowFault("`instruction` is empty")
    if not output.strip():
        raise RowFault("`output` is empty")
    if row.get("history"):
        raise RowFault("`history` is set: write the whole conversation as `messages`")
    turns = ({"role": "user", "content": asked}, {"role": "assistant", "content": output})
    return _conversation((*_system(row), *turns), "instruction")


def _text(row: dict[str, Any], column: str, default: str | None = None) -> str:
    """A column's text; `default`, if there is one, where it has no value."""
    value = row.get(column)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise RowFault(f"`{column}` is not a string")
    return value


def _system(row: dict[str, Any]) -> tuple[Message, ...]:
    """The system's turn of a row that has it as a column."""
    content = _text(row, "system", "")
    return ({"role": "system", "content": content},) if content.strip() else ()


def _turn(turn: Any) -> Message:
    """One of ShareGPT's turns as a message."""
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
        raise RowFault("`conversations` holds something that is not a turn with `from` and `value`")
    sender, value = turn["from"], turn["value"]
    if not isinstance(sender, str) or sender not in _SENDERS:
        raise RowFault(f"`conversations` has a `from` other than {', '.join(_SENDERS)}")
    return _message({"role": _SENDERS[sender], "content": value}, "conversations")


def _conversation(messages: tuple[Message, ...], column: str) -> Sample:
    """A conversation whose completion is its last answer."""
    if not any(message["role"] == "assistant" for message in messages):
        raise RowFault(f"no assistant turn in `{column}`")
    sample = Sample(messages=messages)
    if sample.last_assistant == 0:
        raise RowFault(f"nothing before the assistant's turn in `{column}`")
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
    DataFormat.SHARE_GPT: _from_share_gpt,
    DataFormat.ALPACA: _from_alpaca,
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
