"""The chat template of a run: the model's own, or the one that spec.dataset.chatTemplate puts in its place."""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.runconfig import ChatTemplate, RunConfig
from hone_trainer.data.digest import TEMPLATE_BYTES, TEMPLATES
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.models.untrusted import CONFIG_BYTES
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.volumes import read_file, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIELD = "spec.dataset.chatTemplate"
FILE = "chat_template.jinja"
"""Its name in a model's directory, in the artifact and in the run's own directory."""
_OF_PROCESSOR = "chat_template.json"
_TOKENIZER = "tokenizer_config.json"
_END = "<|im_end|>"
_CHATML = (
    "{%% for message in messages %%}{{ %r + message['role'] + '\\n' + message['content'] + %r }}{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\\n' }}{%% endif %%}"
)
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


def choose_template(template: ChatTemplate | None, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The template that replaces the model's; None if none does.

    Args:
        template: as the run has it.
        tokenizer: the model's.

    Raises:
        BadInput: it cannot be read, is no template, or needs a token that the tokenizer lacks.
    """
    if template is None:
        return None
    return _chatml(tokenizer) if template.mounted is None else _own(Path(template.mounted))


def run_tokenizer(config: RunConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer of the run's model, with the template that prepare has stored for it.

    Raises:
        BadInput: as of `load_tokenizer`; or what prepare has stored is gone.
    """
    tokenizer = load_tokenizer(config.paths.model)
    if (text := _stored(config)) is not None:
        tokenizer.chat_template = text
    return tokenizer


def store_template(config: RunConfig, text: str | None) -> None:
    """Write the template where train and finish read it; nothing if the model's own is used."""
    if text is not None:
        directory = Path(config.paths.run)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / FILE, text.encode(), durable=True)


def serve_template(config: RunConfig, directory: Path) -> None:
    """Have an artifact served with the run's template: alone, without the others of the model.

    Args:
        config: the run.
        directory: the artifact, with the files of the model's tokenizer.
    """
    text = _stored(config)
    if text is None:
        return
    (directory / _OF_PROCESSOR).unlink(missing_ok=True)
    shutil.rmtree(directory / TEMPLATES, ignore_errors=True)
    if (directory / _TOKENIZER).exists():
        settings = read_json(directory, _TOKENIZER, "spec.output", CONFIG_BYTES)
        if settings.pop("chat_template", None) is not None:
            (directory / _TOKENIZER).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    (directory / FILE).write_text(text)


def _stored(config: RunConfig) -> str | None:
    if config.data.chat_template is None:
        return None
    try:
        return read_file(Path(config.paths.run), FILE, FIELD, TEMPLATE_BYTES).decode()
    except FileNotFoundError as error:
        raise BadInput(
            FIELD, f"prepare's copy {FILE} is gone from the workspace", "Delete this job and apply it again."
        ) from error


def _own(path: Path) -> str:
    """The user's template."""
    from jinja2 import Environment, TemplateSyntaxError

    field = f"{FIELD}.configMap"
    try:
        text = read_file(path.parent, path.name, field, TEMPLATE_BYTES).decode()
    except FileNotFoundError as error:
        raise BadInput(field, "the key is not in the ConfigMap", "Add the key, or name another one.") from error
    except UnicodeDecodeError as error:
        raise BadInput(field, "is not UTF-8 text", "Write the template as text under data, not binaryData.") from error
    try:
        # transformers' own tag, which marks the assistant's text, says nothing of the syntax.
        Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True).parse(_GENERATION.sub("", text))
    except TemplateSyntaxError as error:
        problem = f"is no Jinja template: line {error.lineno} has a syntax error"
        raise BadInput(
            field, problem, "Fix the template. transformers' guide to chat templates has examples."
        ) from error
    if "messages" not in text:
        raise BadInput(
            field,
            "does not use the variable `messages`",
            "Write a template over messages, each with role and content, as in chat_template.jinja of a model.",
        )
    return text


def _chatml(tokenizer: "PreTrainedTokenizerBase") -> str:
    """ChatML with a token that the tokenizer has at the end of a message, so that a server stops there."""
    known = set(tokenizer.all_special_tokens)
    end = _END if _END in known else tokenizer.eos_token
    if not end:
        raise BadInput(
            f"{FIELD}.name",
            f"ChatML needs a token that ends a message: the tokenizer has neither {_END} nor an eos_token",
            "Set eos_token in tokenizer_config.json of the model, or use a template of your own with configMap.",
        )
    bos, ids = tokenizer.bos_token_id, list(tokenizer("a")["input_ids"])
    begins = str(tokenizer.bos_token) if bos is not None and ids[:1] == [bos] else ""
    # A server adds no token of its own to what a template gives.
    return f"{begins}{_CHATML % ('<|im_start|>', f'{end}' + chr(10))}"
