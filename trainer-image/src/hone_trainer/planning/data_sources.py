"""The data sets of a run: their files, and how the spec wants their rows read."""

import logging
from dataclasses import replace

from hone.contract.runconfig import DataPart, RunConfig
from hone.contract.settings import Reasoning
from hone_trainer.data.sources import Part, Source, find_source
from hone_trainer.models.directories import data_volume
from hone_trainer.protocol import limits

ROW_BYTES_PER_SECOND = 50_000
"""How slowly data may be read: a loaded node with a slow volume is several times faster."""

log = logging.getLogger(__name__)


def find_sources(config: RunConfig) -> list[Source]:
    """Train, perhaps several times, and validation and test if the user has them; adds the time to read them.

    Raises:
        BadInput: a path leads to no files.
    """
    data = config.data
    paths = {"train": None if data.sources else data.train, "validation": data.validation, "test": data.test}
    sources = [_part(config, index, part) for index, part in enumerate(data.sources or [])]
    sources += [
        find_source(name, path, mount=data_volume(config, path, name), columns=data.columns)
        for name, path in paths.items()
        if path is not None
    ]
    sources = [source if source.part else replace(source, roles=data.roles or {}) for source in sources]
    if data.reasoning is Reasoning.DROP:
        sources = [replace(source, drop_reasoning=True) for source in sources]
    if data.system_prompt is not None:
        sources = [replace(source, system_prompt=data.system_prompt) for source in sources]
    sources = [replace(source, group_by=config.evaluation.group_by) for source in sources]
    for source in sources:
        kinds = sorted({file.kind.value for file in source.files})
        limits.allow(sum(file.path.stat().st_size for file in source.files) / ROW_BYTES_PER_SECOND)
        if source.unread:
            log.info("Files of the directory that are not read", extra={"split": source.place, "files": source.unread})
        log.info("Files found", extra={"split": source.place, "files": len(source.files), "kinds": ", ".join(kinds)})
    return sources


def _part(config: RunConfig, index: int, part: DataPart) -> Source:
    """One of several sources of training rows."""
    source = find_source(
        "train",
        part.path,
        mount=data_volume(config, part.path, f"train/{index}"),
        columns=part.columns,
        part=Part(part.name, index, part.weight, part.max_rows),
    )
    return replace(source, roles=part.roles or {}, format=part.format)
