"""What the first pass has determined, stored on the workspace, so that the next job with the same data reads no row.

<workspace>/prepared/surveys/<digest>.json
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hone.contract.objectives import Objective
from hone.contract.plan import SourceRows
from hone.contract.runconfig import DataPaths
from hone.contract.settings import DataFormat
from hone_trainer.data.classes import Classes
from hone_trainer.data.digest import data_digest, prepared_digest
from hone_trainer.data.faults import Faults
from hone_trainer.data.sources import Source
from hone_trainer.data.survey import Survey
from hone_trainer.protocol.files import write_atomic

_DIRECTORY = "prepared/surveys"
_MAX_BYTES = 1 << 20
_NO_MATTER = ("train", "validation", "test", "mounts", "showExample", "minSamples", "onScarceData")
"""Settings of the data that change nothing of what their rows are: files are told by names and content."""

log = logging.getLogger(__name__)


def digests(objective: Objective, data: DataPaths, sources: Sequence[Source]) -> tuple[str, str]:
    """The digest of the files' content, and that of the content with all that decides what the first pass finds."""
    content = data_digest(sources)
    names = [[source.place, [file.name for file in source.files], source.unread] for source in sources]
    settings = {**data.to_dict(), **dict.fromkeys(_NO_MATTER)}
    settings["sources"] = [{**part.to_dict(), "path": None} for part in data.sources or []] or None
    settings["groupBy"] = [source.group_by for source in sources if source.group_by] or None
    return content, prepared_digest(content, "", {"objective": objective, "data": settings, "names": names})


def load(workspace: Path, digest: str) -> tuple[Survey, Classes | None] | None:
    """What is stored of data whose prepared form exists; None if nothing is. The survey has none of their rows.

    Args:
        workspace: which jobs share.
        digest: of the data and of all that decides what the first pass finds.
    """
    path = workspace / _DIRECTORY / f"{digest}.json"
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    try:
        content = json.loads(path.read_bytes())
        return _survey(content), Classes.of(content["classes"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("What is stored of the data cannot be read", extra={"reason": type(error).__name__})
        return None


def store(workspace: Path, digest: str, survey: Survey, classes: Classes | None) -> None:
    """Store it, once the prepared data exist. Arguments as of `load`."""
    path = workspace / _DIRECTORY / f"{digest}.json"
    content = {
        "formats": survey.formats,
        "duplicates": survey.duplicates,
        "sharedPrompts": survey.shared_prompts,
        "chat": survey.chat,
        "plainText": survey.plain_text,
        "warnings": survey.warnings,
        "sources": [rows.to_dict() for rows in survey.source_rows or []],
        "classes": classes.to_dict() if classes else None,
    }
    data = json.dumps(content).encode()
    if len(data) <= _MAX_BYTES:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


def _survey(content: dict[str, Any]) -> Survey:
    formats = tuple(DataFormat(name) for name in content["formats"])
    return Survey(
        formats[0] if formats else DataFormat.AUTO,
        [],
        Faults(),
        int(content["duplicates"]),
        int(content["sharedPrompts"]),
        chat=bool(content["chat"]),
        plain_text=bool(content["plainText"]),
        warnings=[str(sentence) for sentence in content["warnings"]],
        formats=formats,
        source_rows=[SourceRows.from_dict(rows) for rows in content["sources"]] or None,
    )
