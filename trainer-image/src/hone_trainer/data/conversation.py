"""A conversation, and the only place in the trainer that renders a chat template."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from hone_trainer.protocol.errors import BadInput, RowFault, clip

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Message = dict[str, str]
"""One turn: `role` and `content`."""

HIDES_CONTENT = (
    "the chat template does not show the content of a message: it may be a template for images, which expects content "
    "as a list of parts"
)


@dataclass(frozen=True)
class Conversation:
    """Messages, and the tools that the assistant may call.

    Attributes:
        messages: the turns, in order.
        tools: JSON schemas of functions, as chat templates take them; always empty for now.
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
            RowFault: the template rejects the conversation, or does not show the content of its last message.
        """
        text = self.render_generated(tokenizer, template, add_generation_prompt=add_generation_prompt)
        # Only the last word is looked up: a template may drop thoughts, or trim spaces.
        words = self.messages[-1]["content"].split()
        if words and words[-1] not in text:
            raise RowFault(HIDES_CONTENT)
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

    def encode_marked(self, tokenizer: "PreTrainedTokenizerBase", template: str) -> tuple[list[int], list[int]]:
        """Token ids, and for each 1 where the template's `{% generation %}` blocks mark it as the assistant's, else 0.

        Raises:
            RowFault: the template rejects the conversation.
        """
        options = {"return_dict": True, "return_assistant_tokens_mask": True, "tokenizer_kwargs": {"verbose": False}}
        encoded = cast("BatchEncoding", self._apply(tokenizer, template, **options))
        return list(encoded["input_ids"]), list(encoded["assistant_masks"])

    def _apply(self, tokenizer: "PreTrainedTokenizerBase", template: str | None, **options: Any) -> object:
        tools: list[dict[Any, Any] | Callable[..., Any]] | None = [*self.tools] or None
        try:
            return tokenizer.apply_chat_template(list(self.messages), tools=tools, chat_template=template, **options)
        except (TemplateError, TypeError) as error:
            raise RowFault(f"the chat template rejects the conversation{_words(error, tokenizer, template)}") from error


def _words(error: Exception, tokenizer: "PreTrainedTokenizerBase", template: str | None) -> str:
    """What the template says, if it says so for every conversation: other words may be those of the row."""
    words = str(error)
    return f": {clip(words, 200)}" if words and words in str(template or tokenizer.chat_template) else ""


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
            "Add chat_template.jinja to the model's directory, use the model's chat variant, or write the rows "
            "as prompt and completion strings.",
        )
    return str(template)
