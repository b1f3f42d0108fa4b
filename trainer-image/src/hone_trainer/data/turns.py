"""Messages as people write them: roles and content, ShareGPT's names of both, text in parts, reasoning, weights."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hone_trainer.data.conversation import REASONING, Message
from hone_trainer.data.tools import CALL_KEYS, calls_in, parse_calls
from hone_trainer.protocol.errors import RowFault

ROLES = ("system", "developer", "user", "assistant", "tool")
SENDERS = {
    "human": "user",
    "gpt": "assistant",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
"""ShareGPT's names of the roles."""

_OTHER_ROLES = {"function": "tool"}
"""Older names of roles."""
_OTHER_NAMES = ": name the role of other names in spec.dataset.roles"
_CALLS = "function_call"
"""ShareGPT's sender of tool calls."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
"""Keys of rows and messages that hold what is no text."""
_LOSS_KEYS = ("weight", "loss_weight", "train", "training", "loss")
"""Keys of a turn that say whether it carries loss: OpenAI's and axolotl's, ms-swift's."""
_REFUSED_KEYS = ("train_detail", "training_detail")
_REASONING_KEYS = (REASONING, "reasoning", "thinking")
_USED_KEYS = frozenset({"role", "content", "from", "value", "tool_call_id", *CALL_KEYS, *_LOSS_KEYS, *_REASONING_KEYS})
_PART_KEYS = frozenset({"type", "text"})
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
        used = _USED_KEYS | {"name"} if item.get("role") in ("tool", *_OTHER_ROLES) else _USED_KEYS
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
    if not isinstance(item, dict):
        raise RowFault(f"`{column}` holds something that is not a message with `role` and `content`")
    shared = "role" not in item and "from" in item
    role: Any = item["from"] if shared else item.get("role")
    key = "value" if shared else "content"
    for name in (*MEDIA, *_REFUSED_KEYS):
        if filled(item.get(name)):
            raise RowFault(_no_text(f"`{column}` has a message with `{name}`", name))
    if shared and key not in item:
        raise RowFault(f"`{column}` holds something that is not a turn with `from` and `value`")
    calls = calls_in(item[key], column) if shared and role == _CALLS else parse_calls(item, column)
    if not shared and ("role" not in item or ("content" not in item and not calls)):
        raise RowFault(f"`{column}` holds something that is not a message with `role` and `content`")
    if shared and (not isinstance(role, str) or role not in SENDERS):
        raise RowFault(f"`{column}` has a `from` other than {', '.join(SENDERS)}{_OTHER_NAMES}")
    role = _OTHER_ROLES.get(role, role) if isinstance(role, str) else role
    if not shared and role not in ROLES:
        raise RowFault(f"`{column}` has a role other than {', '.join(ROLES)}{_OTHER_NAMES}")
    role_of_calls = shared and role == _CALLS
    role = SENDERS[role] if shared else role
    if calls and role != "assistant":
        raise RowFault(f"`{column}` has a tool call that is not the assistant's")
    bare = calls and (role_of_calls or item.get(key) is None)
    content = "" if bare else _text(item[key], column, key)
    if role == "assistant" and not content.strip() and not calls:
        raise RowFault(f"`{column}` has an empty assistant turn")
    names = {name: item[name] for name in ("tool_call_id", "name") if role == "tool" and filled(item.get(name))}
    message = {"role": role, "content": content, **_reasoning(item, role, column), **names}
    return {**message, "tool_calls": calls} if calls else message


def _no_text(what: str, name: str) -> str:
    if name in MEDIA:
        return f"{what}: images, audio and video are not supported"
    return f"{what}, which is not supported"


def _text(content: Any, column: str, key: str) -> str:
    """The content, also of parts where all of them are text."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        if any(part.get("type") != "text" for part in content):
            raise RowFault(
                f"`{column}` has a message with parts that are no text: images, audio and video are not supported"
            )
        content = [part.get("text") for part in content]
        if all(isinstance(text, str) for text in content):
            return "".join(content)
    if not isinstance(content, str):
        raise RowFault(f"`{column}` has a message whose `{key}` is not a string")
    return content


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
