"""The directories of models and data that a run reads, with the fields that name them; checked before they are read."""

from pathlib import Path

from hone.contract.runconfig import Download, Merge, RunConfig
from hone_trainer.models.untrusted import check_model

FIELDS = {"model": "spec.model", "reward_model": "spec.reward.model", "teacher": "spec.teacher"}
"""The fields of the spec that name models, by the names of `Paths`."""


def models(config: RunConfig) -> dict[Path, str]:
    """The models that all steps read, with their fields. Some exist only once prepare has written them."""
    paths = {getattr(config.paths, name): field for name, field in FIELDS.items()}
    return {Path(path): field for path, field in paths.items() if path is not None}


def originals(config: RunConfig) -> dict[Path, str]:
    """What prepare reads on volumes that users fill, with the fields: models, and what it merges them from."""
    merges = [entry for entry in config.materialize if isinstance(entry, Merge)]
    adapters = {Path(path): merge.field for merge in merges for path in (merge.adapter, merge.base)}
    written = {Path(merge.merged) for merge in merges} | set(downloads(config))
    return {**{path: field for path, field in models(config).items() if path not in written}, **adapters}


def downloads(config: RunConfig) -> dict[Path, str]:
    """The models that prepare downloads, with the fields; it checks them once they are there."""
    entries = [entry for entry in config.materialize if isinstance(entry, Download) and not entry.is_data]
    return {Path(entry.downloaded): entry.field for entry in entries}


def data_volume(config: RunConfig, path: str, name: str) -> Path | None:
    """The directory that no link of a data set may lead out of: what was downloaded, or the volume that was mounted."""
    entries = [entry for entry in config.materialize if isinstance(entry, Download)]
    if directory := next((each.downloaded for each in entries if path.startswith(f"{each.downloaded}/")), None):
        return Path(directory)
    return Path(config.data.mounts) / name if config.data.mounts else None


def check_models(directories: dict[Path, str]) -> None:
    """Refuse models whose files are not all on their volumes, or ask for code or other files.

    Raises:
        BadInput: naming field and file.
    """
    for directory, field in directories.items():
        check_model(directory, field)
