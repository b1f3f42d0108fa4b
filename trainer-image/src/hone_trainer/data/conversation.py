"""A conversation, and the only place in the trainer that renders a chat template."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from hone_trainer.protocol.errors import BadInput, RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
"""One turn: `role` and `content`, `REASONING` where the reasoning is not part of the content, and `tool_calls`; of a
tool's answer perhaps its `name` and `tool_call_id`."""
REASONING = "reasoning_content"
_REASONING_NAMES = (REASONING, "thinking", "reasoning")
"""The names that chat templates have for it: most, gpt-oss's, and others'."""

HIDES_CONTENT = (
    "the chat template does not show the content of a message: it may be a template for images, which expects content "
    "as a list of parts"
)
FORGETS_TURNS = "the chat template does not show every turn of a conversation"
HIDES_TOOLS = "the chat template does not show tools, tool calls or their results"
HIDES_ROLE = "the chat template leaves out the turns of the role"
REJECTS = "the chat template rejects the conversation"
HIDES_REASONING = (
    f"the chat template does not show the `{REASONING}` of an answer: use a template that does, or set "
    "spec.dataset.reasoning to Drop"
)


@dataclass(frozen=True)
class Conversation:
    """Messages, and the tools that the assistant may call.

    Attributes:
        messages: the turns, in order.
        tools: JSON schemas of functions, as chat templates take them.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()

    def until(self, end: int) -> "Conversation":
        """Its first `end` messages."""
        return replace(self, messages=self.messages[:end])

    def followed_by(self, messages: tuple[Message, ...]) -> "Conversation":
        """The conversation with further messages."""
        return replace(self, messages=self.messages + messages)

    def render(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as text.

        Args:
            tokenizer: the model's.
            template: a chat template; None: the model's own.
            add_generation_prompt: whether the text ends with what opens an assistant's turn.

        Raises:
            RowFault: the template rejects the conversation, or does not show the content of its last message, or its
                reasoning.
        """
        text = self.render_generated(tokenizer, template, add_generation_prompt=add_generation_prompt)
        self._require_shown(tokenizer, template, add_generation_prompt=add_generation_prompt)
        # Only the last word is looked up: a template may drop thoughts, or trim spaces.
        last = self.messages[-1]
        words = last["content"].split() if last["role"] != "tool" else []
        if words and words[-1] not in text:
            raise RowFault(HIDES_CONTENT)
        words = self.messages[-1].get(REASONING, "").split()
        if words and words[-1] not in text:
            raise RowFault(HIDES_REASONING)
        return text

    def render_generated(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """As `render`, for a conversation that ends with a model's own answer, which the template may show or not.

        Raises:
            RowFault: the template rejects the conversation.
        """
        return str(
            self._apply(tokenizer, template, tokenize=False, add_generation_prompt=add_generation_prompt),
        )

    def render_marked(self, tokenizer: "PreTrainedTokenizerBase", template: str) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text, and where the template's `{% generation %}` blocks begin and end in it.

        Raises:
            RowFault: the template rejects the conversation.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            special: dict[str, Any] = dict(tokenizer.special_tokens_map)
            rendered: Any = render_jinja_template(
                conversations=[[_with_names(message) for message in self.messages]],
                tools=[*self.tools] or None,
                chat_template=template,
                return_assistant_tokens_mask=True,
                **special,
            )
        except Exception as error:
            raise _rejected(error, tokenizer, template) from error
        (text,), (blocks,) = rendered
        return str(text), [(low, high) for low, high in blocks]

    def _require_shown(
        self, tokenizer: "PreTrainedTokenizerBase", template: str | None, *, add_generation_prompt: bool
    ) -> None:
        """Raise RowFault if the template leaves out a message that has words."""
        roles = [message["role"] for message in self.messages]
        shapes = tuple(
            (message["role"], bool(message["content"].strip()), len(message.get("tool_calls", ())))
            for message in self.messages
        )
        text = str(template or tokenizer.chat_template)
        hidden, calls, tools = _hidden(tokenizer, text, shapes, bool(self.tools), add_generation_prompt)
        if calls or tools or "tool" in {roles[i] for i in hidden}:
            raise RowFault(HIDES_TOOLS)
        silent = {roles[i] for i in hidden}
        if "user" in silent or "assistant" in silent:
            raise RowFault(HIDES_CONTENT if len(roles) - 1 in hidden else FORGETS_TURNS)
        if silent:
            raise RowFault(f"{HIDES_ROLE} {min(silent)}")

    def _apply(self, tokenizer: "PreTrainedTokenizerBase", template: str | None, **options: Any) -> object:
        tools: list[dict[Any, Any] | Callable[..., Any]] | None = [*self.tools] or None
        messages = [_with_names(message) for message in self.messages]
        try:
            return tokenizer.apply_chat_template(messages, tools=tools, chat_template=template, **options)
        except Exception as error:
            raise _rejected(error, tokenizer, template) from error


def _with_names(message: Message) -> Message:
    """The message with its reasoning under every name that templates have for it."""
    if REASONING not in message:
        return message
    return {**message, **dict.fromkeys(_REASONING_NAMES, message[REASONING])}


def _rejected(error: Exception, tokenizer: "PreTrainedTokenizerBase", template: str | None) -> RowFault:
    """The fault of a row for which the template fails: on purpose, or because it does not expect such a row.

    It has the template's words if it says them for every conversation: others may be those of the row.

    Raises:
        MemoryError: there is no memory left, which is no fault of the row.
    """
    if isinstance(error, MemoryError):
        raise error
    words = str(error)
    if isinstance(error, TemplateError | TypeError):
        message = f": {clip(words, 200)}" if words and words in str(template or tokenizer.chat_template) else ""
        return RowFault(f"{REJECTS}{message}")
    return RowFault(f"{REJECTS}: it fails with {type(error).__name__}")


Shape = tuple[str, bool, int]
"""Of a message its role, whether it has content, and how many tool calls."""


@lru_cache(maxsize=4096)
def _hidden(
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    shapes: tuple[Shape, ...],
    tools: bool,
    add_generation_prompt: bool,
) -> tuple[frozenset[int], bool, bool]:
    """What the template leaves out of a conversation: messages by index, any tool call, and the tools.

    Raises:
        RowFault: the template rejects such a conversation.
    """
    words = [f"zq{i}x" for i in range(len(shapes))]
    calls = [f"zqf{i}x{number}" for i, (_, _, count) in enumerate(shapes) for number in range(count)]
    messages, identity = [], ""
    for i, (role, content, count) in enumerate(shapes):
        message: Message = {"role": role, "content": words[i] if content else ""}
        if count:
            identity = f"call{i:05}"
            message["tool_calls"] = [_call(f"zqf{i}x{number}", identity) for number in range(count)]
        if role == "tool":
            message |= {"name": "zqtool", "tool_call_id": identity or "call00000"}
        messages.append(message)
    turns = Conversation(tuple(messages), (_TOOL,) if tools else ())
    text = turns.render_generated(tokenizer, template, add_generation_prompt=add_generation_prompt)
    hidden = frozenset(i for i, (_, content, _) in enumerate(shapes) if content and words[i] not in text)
    return hidden, not all(name in text for name in calls), tools and "zqlookup" not in text


_TOOL = {
    "type": "function",
    "function": {
        "name": "zqlookup",
        "description": "Finds.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string", "description": "What to find."}}},
    },
}


def _call(name: str, identity: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": {"key": "a"}}}


def require_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The model's chat template.

    Raises:
        BadInput: it has none.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise BadInput(
            "spec.model",
            "the rows are conversations, but the model has no chat template",
            "Set spec.dataset.chatTemplate (name ChatML, or a template of your own), use the model's chat variant, or "
            "write the rows as prompt and completion strings.",
        )
    return str(template)
