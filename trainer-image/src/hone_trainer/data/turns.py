"""Messages as people write them: roles and content, ShareGPT's names of both, text in parts, reasoning, weights."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hone_trainer.data.conversation import REASONING, Message
from hone_trainer.data.tools import CALL_KEYS, calls_in, parse_calls
from hone_trainer.protocol.errors import RowFault, plain_names

ROLES = ("system", "developer", "user", "assistant", "tool")
SENDERS = {
    "human": "user",
    "gpt": "assistant",
    **{role: role for role in ROLES},
    "function_call": "assistant",
    "observation": "tool",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool_call": "assistant",
    "tool_response": "tool",
    "function": "tool",
    "function_response": "tool",
}
"""Roles by the names that people have for them: ShareGPT's, Gemini's, ms-swift's, Glaive's and OpenAI's older ones."""
_COMMON = ("human", "gpt", "system", "user", "assistant", "function_call", "observation", "tool")
"""Those that a message about others names."""
_OTHER_NAMES = ": name the role of other names in spec.dataset.roles"
_CALLS = ("function_call", "tool_call")
"""Senders whose text is tool calls."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
"""Keys of rows and messages that hold what is no text."""
_LOSS_KEYS = ("weight", "loss_weight", "train", "training", "loss")
"""Keys of a turn that say whether it carries loss: OpenAI's and axolotl's, ms-swift's."""
_REFUSED_KEYS = ("train_detail", "training_detail")
_REASONING_KEYS = (REASONING, "reasoning", "thinking")
_USED_KEYS = frozenset({"role", "content", "from", "value", "tool_call_id", *CALL_KEYS, *_LOSS_KEYS, *_REASONING_KEYS})
_KEYS = (("role", "from"), ("content", "value"))
"""Keys of the sender, and of the text."""
_PART_KEYS = frozenset({"type", "text"})
_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of parts that are text: those of chat completions, and of responses."""
_MEDIA_PARTS = re.compile(r"(input_)?(image|audio|video|file)(_url)?")
_YES_NO = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}
_PYTHON_LIST = re.compile(r"\s*\[\s*\{\s*['\"](?:role|from|content|value)['\"]\s*:")


@dataclass(frozen=True)
class Turns:
    """A list of messages.

    Attributes:
        messages: role and content of each, and the reasoning where it stands under a key of its own.
        untrained: the assistant's turns that are to carry no loss, by index.
    """

    messages: tuple[Message, ...]
    untrained: frozenset[int] = frozenset()


def filled(value: Any) -> bool:
    """Whether a value says anything: tables have every column in every row, empty or null."""
    return (
        value is not None and value not in ("", [], {}, "[]", "{}") and not (isinstance(value, str) and value.isspace())
    )


def unpacked(value: Any, column: str) -> Any:
    """The list of messages that a text is the JSON of; any other value as it is.

    Raises:
        RowFault: the text is a list of messages in another writing, which would be learned as text.
    """
    if not isinstance(value, str) or not _PYTHON_LIST.match(value):
        return value
    messages = messages_in(value)
    if messages is None:
        raise RowFault(
            f"`{column}` is a list of messages as Python writes it, not as JSON: write it with json.dumps, or save "
            "the rows as JSON Lines or Parquet"
        )
    return messages


def messages_in(text: str) -> list[Any] | None:
    """The list of messages that a text is the JSON of; None for any other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if value and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value):
        return list(value)
    return None


def unpacked_list(value: Any) -> Any:
    """The list that a text is the JSON of, as cells of tables have lists; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        inner = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return inner if isinstance(inner, list) else value


def parse_turns(value: Any, column: str) -> Turns:
    """A list of messages.

    Raises:
        RowFault: it is none, or a message of it cannot be learned from as it is meant.
    """
    if not isinstance(value, list):
        raise RowFault(f"`{column}` is not a list of messages")
    if not value:
        raise RowFault(f"`{column}` is empty")
    messages = tuple(_message(item, column) for item in value)
    untrained = frozenset(i for i, item in enumerate(value) if not _trained(item, messages[i]["role"], column))
    return Turns(messages, untrained)


def parse_messages(value: Any, column: str) -> tuple[Message, ...]:
    """A list of messages whose loss is not chosen turn by turn: a prompt.

    Raises:
        RowFault: as `parse_turns`.
    """
    return parse_turns(value, column).messages


def parse_answer(value: Any, column: str) -> tuple[Message, ...]:
    """A list of messages that is learned as a whole.

    Raises:
        RowFault: as `parse_turns`; or a turn of it is to carry no loss.
    """
    turns = parse_turns(value, column)
    if turns.untrained:
        raise RowFault(f"`{column}` has an assistant turn of weight 0, but the answer is compared as a whole")
    return turns.messages


def unused_keys(value: Any, column: str) -> Iterator[str]:
    """The keys of messages that nothing reads, as `messages[].name`, once for each message."""
    for item in value if isinstance(value, list) else ():
        if not isinstance(item, dict):
            continue
        used = _USED_KEYS | {"name"} if _role(item.get("role")) == "tool" else _USED_KEYS
        yield from (f"{column}[].{key}" for key, held in item.items() if key not in used and filled(held))
        parts = item.get("content")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                yield from (
                    f"{column}[].content[].{key}"
                    for key, held in part.items()
                    if key not in _PART_KEYS and filled(held)
                )


def _message(item: Any, column: str) -> Message:
    sender, key = (_first(item, *names) if isinstance(item, dict) else None for names in _KEYS)
    if sender is None:
        raise RowFault(f"`{column}` holds something that is not a message with `role` and `content`")
    for name in (*MEDIA, *_REFUSED_KEYS):
        if filled(item.get(name)):
            raise RowFault(_no_text(f"`{column}` has a message with `{name}`", name))
    role = _role(item[sender])
    bare = key is not None and _name(item[sender]) in _CALLS and not any(filled(item.get(each)) for each in CALL_KEYS)
    calls = calls_in(item[key], column) if key is not None and bare else parse_calls(item, column)
    if key is None and not calls:
        words = "a turn with `from` and `value`" if sender == "from" else "a message with `role` and `content`"
        raise RowFault(f"`{column}` holds something that is not {words}")
    if role is None:
        known = f"`from` other than {', '.join(_COMMON)}" if sender == "from" else f"role other than {', '.join(ROLES)}"
        raise RowFault(f"`{column}` has a {known}{_OTHER_NAMES}")
    if calls and role != "assistant":
        raise RowFault(f"`{column}` has a tool call that is not the assistant's")
    content = "" if key is None or bare or (calls and item[key] is None) else _text(item, column, key)
    if role == "assistant" and not content.strip() and not calls:
        raise RowFault(f"`{column}` has an empty assistant turn")
    names = {name: item[name] for name in ("tool_call_id", "name") if role == "tool" and filled(item.get(name))}
    message = {"role": role, "content": content, **_reasoning(item, role, column), **names}
    return {**message, "tool_calls": calls} if calls else message


def _first(item: dict[str, Any], *names: str) -> str | None:
    """The first of the keys that a message has, not null if it can be: a table has all keys in all messages."""
    present = [name for name in names if name in item]
    return next((name for name in present if item[name] is not None), present[0] if present else None)


def _name(value: Any) -> str:
    """A sender's name, without regard to case and the space around it."""
    return value.strip().lower() if isinstance(value, str) else ""


def _role(value: Any) -> str | None:
    """The role of a sender; None if it is not known."""
    return SENDERS.get(value) or SENDERS.get(_name(value)) if isinstance(value, str) else None


def _no_text(what: str, name: str) -> str:
    if name in MEDIA:
        return f"{what}: images, audio and video are not supported"
    return f"{what}, which is not supported"


def _text(item: dict[str, Any], column: str, key: str) -> str:
    """The content, also of parts where all of them are text."""
    content = item[key]
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        for part in content:
            if part.get("type") not in _TEXT_PARTS:
                raise RowFault(_other_part(column, part.get("type")))
        content = [part.get("text") for part in content]
        if all(isinstance(text, str) for text in content):
            return "".join(content)
    if isinstance(content, str):
        return content
    if content is None and filled(item.get("refusal")):
        raise RowFault(f"`{column}` has an answer whose words are its `refusal`: write them as `{key}`, or remove it")
    if content is None:
        raise RowFault(f"`{column}` has a message whose `{key}` is null: write its text, or remove the message")
    advice = ": write JSON as text" if isinstance(content, dict) else ""
    raise RowFault(f"`{column}` has a message whose `{key}` is not a string{advice}")


def _other_part(column: str, type: Any) -> str:
    """What is wrong with a part of this type."""
    if not isinstance(type, str) or _MEDIA_PARTS.fullmatch(type):
        return f"`{column}` has a message with parts that are no text: images, audio and video are not supported"
    advice = "; write tool calls as `tool_calls`, and their results as messages of the role tool"
    return (
        f"`{column}` has a message with a part of the type {plain_names([type])}, of which only text is supported"
        f"{advice if type.startswith('tool') else ''}"
    )


def _reasoning(item: dict[str, Any], role: str, column: str) -> dict[str, str]:
    """The reasoning of an assistant's turn that stands under a key of its own."""
    values = {name: item[name] for name in _REASONING_KEYS if filled(item.get(name))}
    if not values:
        return {}
    (name, text), *others = values.items()
    if not isinstance(text, str) or role != "assistant" or any(other != text for _, other in others):
        raise RowFault(f"`{column}` has a message with `{name}` that is not the text of one assistant turn's reasoning")
    return {REASONING: text}


def _trained(item: dict[str, Any], role: str, column: str) -> bool:
    """Whether a turn may carry loss, as its own keys say.

    Raises:
        RowFault: they say what is not supported: a share, or loss on words that are not the assistant's.
    """
    trained = True
    for name in _LOSS_KEYS:
        if item.get(name) is None:
            continue
        weight = _YES_NO.get(str(item[name]).strip().lower())
        if weight is None:
            raise RowFault(f"`{column}` has a message whose `{name}` is neither 0 nor 1, nor true or false")
        if weight and role != "assistant" and item[name] is True:
            raise RowFault(f"`{column}` has a turn with `{name}` that is not the assistant's: only answers are learned")
        trained = trained and bool(weight)
    return trained or role != "assistant"
