"""Checkpoints on disk: which are whole, which is the newest, which may go.

    <run>/checkpoints/checkpoint-<step>/     what transformers' Trainer (or DeepSpeed) saves
        COMPLETE.json                        written last: a directory without it is half a checkpoint

Half checkpoints are never resumed from. They are removed once a later one is whole.
"""

import json
import logging
import shutil
from pathlib import Path

from pydantic import ValidationError

from hone.contract.base import Model
from hone.contract.runconfig import RunConfig
from hone_trainer.files import sizes, sync_tree, write_atomic

COMPLETE_FILE = "COMPLETE.json"
TRAINING_ARGS_FILE = "training_args.bin"
"""The Trainer's pickled arguments: nothing reads them, and they can hold tokens in clear."""

_PREFIX = "checkpoint-"

logger = logging.getLogger(__name__)


class Complete(Model):
    """The content of COMPLETE.json."""

    step: int
    """Optimizer steps done."""
    world_size: int
    zero_stage: int
    final: bool = False
    """Whether the run ended with this checkpoint."""
    files: dict[str, int] = {}
    """Size in bytes of every file, by relative path; another size or a missing file means that it is not whole."""


def checkpoints_dir(config: RunConfig) -> Path:
    """Where the run keeps its checkpoints."""
    return Path(config.paths.run) / "checkpoints"


def checkpoint_dir(directory: Path, step: int) -> Path:
    """The checkpoint of a step, as the Trainer names it."""
    return directory / f"{_PREFIX}{step}"


def read_complete(checkpoint: Path) -> Complete | None:
    """What COMPLETE.json says, or None where the checkpoint is not whole."""
    try:
        complete = Complete.model_validate_json((checkpoint / COMPLETE_FILE).read_text())
        for name, size in complete.files.items():
            if (checkpoint / name).stat().st_size != size:
                return None
    except (OSError, ValidationError):
        return None
    return complete


def whole(directory: Path) -> list[tuple[Path, Complete]]:
    """Every whole checkpoint under `directory`, the oldest first."""
    found = [(path, complete) for path in _all(directory) if (complete := read_complete(path)) is not None]
    return sorted(found, key=lambda item: item[1].step)


def newest(directory: Path) -> tuple[Path, Complete] | None:
    """The newest whole checkpoint, or None."""
    found = whole(directory)
    return found[-1] if found else None


def final_checkpoint(directory: Path) -> tuple[Path, Complete] | None:
    """The checkpoint the run ended with, or None where it has not ended."""
    last = newest(directory)
    return last if last and last[1].final else None


def discard_half(checkpoint: Path) -> None:
    """Remove what an earlier attempt left of this checkpoint, unless it is whole."""
    if checkpoint.exists() and read_complete(checkpoint) is None:
        shutil.rmtree(checkpoint)


def complete(checkpoint: Path, *, step: int, world_size: int, zero_stage: int, final: bool) -> Complete:
    """Mark a checkpoint whole. Call it on one rank, after every rank has written its part.

    The files are flushed to the disk before COMPLETE.json is written, so that it cannot outlive them.
    """
    (checkpoint / TRAINING_ARGS_FILE).unlink(missing_ok=True)
    (checkpoint / COMPLETE_FILE).unlink(missing_ok=True)
    sync_tree(checkpoint)
    mark = Complete(step=step, world_size=world_size, zero_stage=zero_stage, final=final, files=sizes(checkpoint))
    write_atomic(checkpoint / COMPLETE_FILE, json.dumps(mark.to_dict(), indent=1).encode(), durable=True)
    return mark


def prune(directory: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` whole checkpoints, and the half ones that are older than the newest whole one.

    Returns:
        What was removed.
    """
    found = whole(directory)
    if not found:
        return []
    kept = {path for path, _ in found[-keep:]}
    last = found[-1][1].step
    gone = [path for path in _all(directory) if path not in kept and _step(path) <= last]
    for path in gone:
        # COMPLETE.json first: a removal that is cut short must not leave something that looks whole.
        (path / COMPLETE_FILE).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        logger.debug("removed a checkpoint", extra={"path": str(path)})
    return gone


def _all(directory: Path) -> list[Path]:
    return [path for path in directory.glob(f"{_PREFIX}*") if path.is_dir() and _step(path) >= 0]


def _step(checkpoint: Path) -> int:
    digits = checkpoint.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdigit() else -1
