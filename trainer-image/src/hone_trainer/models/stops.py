"""The tokens at which an answer ends: those that a server stops at, and those that the rows teach in addition."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.models.merging import GENERATION_BYTES, GENERATION_FILE
from hone_trainer.models.untrusted import CONFIG, CONFIG_BYTES
from hone_trainer.protocol.volumes import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_KEY = "eos_token_id"


def stops_of(directory: Path, tokenizer: "PreTrainedTokenizerBase", field: str = "spec.model") -> set[int]:
    """The tokens at which a server of a model stops: the tokenizer's end, and those of the generation config or, where
    there is none, of the model's config.

    Raises:
        BadInput: a file leads out of its volume, or is too large.
    """
    generation = _settings(directory, GENERATION_FILE, GENERATION_BYTES, field)
    settings = generation or _settings(directory, CONFIG, CONFIG_BYTES, field)
    return {*_ids(settings.get(_KEY)), *_ids(tokenizer.eos_token_id)}


def add_stops(directory: Path, model: Path, tokenizer: "PreTrainedTokenizerBase", ends: Iterable[int]) -> None:
    """Write the tokens that end a trained answer into an artifact's generation config, if its model stops at others.

    Args:
        directory: the artifact.
        model: the directory of the model that was trained.
        tokenizer: the model's.
        ends: the tokens.
    """
    stops = stops_of(model, tokenizer)
    if not {*ends} - stops:
        return
    settings = _settings(directory, GENERATION_FILE, GENERATION_BYTES, "spec.output")
    text = json.dumps({**settings, _KEY: sorted(stops | {*ends})}, indent=2, sort_keys=True)
    (directory / GENERATION_FILE).write_text(text + "\n")


def stop_as_served(model: "PreTrainedModel", directory: Path) -> None:
    """Have a loaded model stop where the artifact's generation config says, which the files of its base do not know."""
    settings = _settings(directory, GENERATION_FILE, GENERATION_BYTES, "spec.output")
    config = model.generation_config
    if config is not None and (ids := _ids(settings.get(_KEY))):
        config.eos_token_id = sorted(ids)


def stop_warnings(directory: Path, tokenizer: "PreTrainedTokenizerBase", ends: Iterable[int]) -> list[str]:
    """A sentence about tokens that end a trained answer, but at which a server of the model does not stop."""
    missing = sorted({*ends} - stops_of(directory, tokenizer))
    if not missing:
        return []
    names = ", ".join(str(tokenizer.convert_ids_to_tokens(token)) for token in missing)
    return [
        f"Answers end with {names}, at which the model does not stop (eos_token_id in generation_config.json). The "
        "artifact's generation_config.json has it in addition; a server of an adapter reads that of the base model: "
        f"add {', '.join(map(str, missing))} there."
    ]


def _settings(directory: Path, name: str, limit: int, field: str) -> dict[str, Any]:
    return read_json(directory, name, field, limit) if (directory / name).exists() else {}


def _ids(value: Any) -> set[int]:
    return {token for token in (value if isinstance(value, list) else [value]) if isinstance(token, int)}
