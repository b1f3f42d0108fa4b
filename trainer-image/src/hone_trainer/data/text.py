"""Text and conversations as token ids: what every encoder needs of a tokenizer."""

from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from hone_trainer.data.formats import Message
from hone_trainer.protocol.errors import BadInput, RowFault, clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


UNSHOWN = "the chat template does not show what a message says: it may be one for images, and want content in parts"


def ids_of(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Ids of a text without any special token of the tokenizer's own: a chat template writes them itself."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def opening_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Ids with the special tokens that open a text, without those that close it."""
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    closes = ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(str(tokenizer.eos_token))
    return ids[:-1] if closes else ids


def answered(tokenizer: "PreTrainedTokenizerBase", prompt: str, *answers: str) -> tuple[list[int], list[list[int]]]:
    """Ids of a prompt, and of each of the answers that may follow it, with the token that ends a text.

    Prompt and answer are encoded as one text where that keeps the prompt's tokens, else one after the other.
    """
    head = opening_ids(tokenizer, prompt)
    end, tails = tokenizer.eos_token_id, []
    for answer in answers:
        whole = opening_ids(tokenizer, prompt + answer)
        tail = whole[len(head) :] if whole[: len(head)] == head else ids_of(tokenizer, answer)
        tails.append(tail if end is None or (tail and tail[-1] == end) else [*tail, end])
    return head, tails


def render(
    tokenizer: "PreTrainedTokenizerBase", messages: tuple[Message, ...], template: str | None = None, **options: Any
) -> str:
    """A conversation as text, by the model's own chat template where no other is given.

    Raises:
        RowFault: the template refuses it, or leaves out what the last message says.
    """
    text = rendered(tokenizer, messages, template, **options)
    # Only its last word: a template may drop thoughts, or trim.
    said = messages[-1]["content"].split()
    if said and said[-1] not in text:
        raise RowFault(UNSHOWN)
    return text


def rendered(
    tokenizer: "PreTrainedTokenizerBase", messages: tuple[Message, ...], template: str | None = None, **options: Any
) -> str:
    """As `render`, of answers that a model wrote: nobody but its template says what of them is shown.

    Raises:
        RowFault: the template refuses it.
    """
    try:
        return str(tokenizer.apply_chat_template(list(messages), chat_template=template, tokenize=False, **options))
    except (TemplateError, TypeError) as error:
        raise RowFault(refusal(error)) from error


def refusal(error: Exception) -> str:
    """What is said of a row that the chat template refuses."""
    return f"the chat template refuses the conversation: {clip(str(error), 200)}"


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
