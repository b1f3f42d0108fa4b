"""The artifact: the trained weights with all that is served with them."""

from collections.abc import Iterable
from pathlib import Path

from hone.contract.runconfig import RunConfig
from hone_trainer.methods import METHODS
from hone_trainer.models.chat_template import run_tokenizer, serve_template
from hone_trainer.models.merging import copy_served_files
from hone_trainer.models.stops import add_stops
from hone_trainer.models.untrusted import CONFIG, CONFIG_BYTES
from hone_trainer.objectives import components
from hone_trainer.protocol.volumes import read_json
from hone_trainer.training.checkpoint import TRAINING_ARGS_FILE


def export(config: RunConfig, checkpoint: Path, directory: Path, ends: Iterable[int] = ()) -> str:
    """Write a checkpoint's weights and what is served with them into the empty `directory`.

    Args:
        config: the run.
        checkpoint: the last one.
        directory: of the artifact.
        ends: the tokens that end a trained answer, at which the artifact is to stop.

    Returns:
        Adapter or Model.
    """
    kind = METHODS[config.method.type].export(config, components(config.objective).architecture, checkpoint, directory)
    copy_served_files(Path(config.paths.model), directory, "spec.model")
    serve_template(config, directory)
    add_stops(directory, Path(config.paths.model), run_tokenizer(config), ends)
    (directory / TRAINING_ARGS_FILE).unlink(missing_ok=True)
    return kind


def max_model_length(config: RunConfig) -> int | None:
    """Longest context in tokens that the base model was made for."""
    settings = read_json(Path(config.paths.model), CONFIG, "spec.model", CONFIG_BYTES)
    text = settings.get("text_config") or settings
    length: int | None = text.get("max_position_embeddings")
    return length
