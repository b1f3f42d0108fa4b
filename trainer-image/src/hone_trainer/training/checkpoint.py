"""Checkpoints on disk: which are whole, which is the newest, which may go.

    <run>/checkpoints/checkpoint-<step>/     what transformers' Trainer (or DeepSpeed) saves
        COMPLETE.json                        written last: a directory without it is half a checkpoint

Half checkpoints are never resumed from, nor are those of another RunConfig: an edit of the spec can overtake the start
of a pod, which then trains by the old one for a while. Both are removed once a later one is whole.

Every rank flushes its own files to the disk and reads them for their digests: another machine cannot do the first, and
would have to fetch them for the second. COMPLETE.json has the SHA-256 of every file, unless there are too many bytes to
read again before ranks resume (`MAX_HASHED_BYTES`). Launchers compare them before ranks resume, and finish before it
exports; sizes alone are compared more often, because all of the weights have to be read for a digest.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hone.contract.base import Model
from hone.contract.report import ArtifactFile
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Select
from hone_trainer.protocol import manifest
from hone_trainer.protocol.errors import WorkspaceFull, full_disk_hint
from hone_trainer.protocol.files import is_full, sync_files, write_atomic
from hone_trainer.protocol.runconfig import digest_of

CHECKPOINTS = "checkpoints"
"""Directory below that of a run."""
COMPLETE_FILE = "COMPLETE.json"
TRAINING_ARGS_FILE = "training_args.bin"
"""The Trainer's pickled arguments: nothing reads them, and they can hold tokens in clear."""

MAX_HASHED_BYTES = 32 << 30
"""Most bytes of a checkpoint with digests. The launcher of every pod reads them before its ranks resume, on a network
volume perhaps at 0.5 GB/s."""
_PREFIX = "checkpoint-"
_OF_A_RANK = re.compile(r"(?:rng_state|zero_pp_rank)_(\d+)")
"""In names of files that every rank writes, with its rank; rank 0 alone writes all others."""
_TORCH_WRITER = "inline_container.cc"
"""In what torch.save raises for every write that failed: positions that do not fit, and nothing of the reason."""

logger = logging.getLogger(__name__)


class Complete(Model):
    """The content of COMPLETE.json."""

    step: int
    """Optimizer steps done."""
    world_size: int
    zero_stage: int
    final: bool = False
    """Whether the run ended with this checkpoint."""
    eval_loss: float | None = None
    """Loss on the validation rows at this step; None: they were not evaluated at it, or it may not be exported."""
    run_config: str | None = None
    """Digest of the RunConfig it was made by; None from a release that did not say."""
    files: dict[str, int] = {}
    """Size in bytes of every file, by relative path; another size or a missing file means that it is not whole."""
    sha256: dict[str, str] | None = None
    """SHA-256 of every file, by relative path. None in checkpoints of releases that did not write it: a run that was in
    flight at an upgrade resumes from them, and sizes are the only check."""


@dataclass(frozen=True)
class Written:
    """The files of a checkpoint: size in bytes and, unless there are too many bytes, SHA-256 by relative path."""

    sizes: dict[str, int]
    sha256: dict[str, str] | None


def checkpoints_dir(config: RunConfig) -> Path:
    """Where the run keeps its checkpoints."""
    return Path(config.paths.run) / CHECKPOINTS


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


def whole(directory: Path, run_config: str | None = None) -> list[tuple[Path, Complete]]:
    """Every whole checkpoint under `directory`, the oldest first.

    Args:
        directory: where the checkpoints are.
        run_config: a RunConfig's digest; those that another one's run made are left out.
    """
    checkpoints = [(path, complete) for path in _all(directory) if (complete := _usable(path, run_config)) is not None]
    return sorted(checkpoints, key=lambda item: item[1].step)


def newest(config: RunConfig) -> tuple[Path, Complete] | None:
    """The newest whole checkpoint that this very RunConfig made, or None."""
    checkpoints = whole(checkpoints_dir(config), digest_of(config))
    return checkpoints[-1] if checkpoints else None


def final_checkpoint(config: RunConfig) -> tuple[Path, Complete] | None:
    """The checkpoint the run ended with, or None where it has not ended."""
    last = newest(config)
    return last if last and last[1].final else None


def best(checkpoints: list[tuple[Path, Complete]]) -> tuple[Path, Complete] | None:
    """Of these, the oldest first, the earliest with the lowest loss on the validation rows; None if none has a loss."""
    evaluated = [item for item in checkpoints if item[1].eval_loss is not None]
    return min(evaluated, key=lambda item: item[1].eval_loss or 0.0, default=None)


def exported(config: RunConfig, select: Select | None) -> tuple[Path, Complete] | None:
    """The checkpoint whose weights are the run's result, or None where the run has not ended.

    Args:
        config: the run.
        select: as planned; None: by a release that had no choice, so the last one.
    """
    final = final_checkpoint(config)
    if final is None or select is not Select.BEST:
        return final
    return best(whole(checkpoints_dir(config), digest_of(config))) or final


def differences(checkpoint: Path, mark: Complete) -> list[str]:
    """In what the files differ from those that were written: each with what is wrong; empty if they do not.

    Reads the whole checkpoint. Without digests, nothing is known to differ: older releases wrote none, and
    large checkpoints have none.
    """
    if mark.sha256 is None:
        return []
    files = [
        ArtifactFile(path=path, sha256=digest, size_bytes=mark.files.get(path, 0))
        for path, digest in mark.sha256.items()
    ]
    return manifest.differences(checkpoint, files, without=(COMPLETE_FILE,))


def discard_changed(config: RunConfig) -> list[str]:
    """Give up the newest checkpoints whose files are not those that were written, until one is as it was.

    Call it before ranks resume: each of them then takes the newest that is left. What is given up counts as half a
    checkpoint.

    Returns:
        What was given up, in sentences.
    """
    given_up = []
    while last := newest(config):
        path, mark = last
        problems = differences(path, mark)
        if not problems:
            break
        (path / COMPLETE_FILE).unlink(missing_ok=True)
        given_up.append(f"the checkpoint of step {mark.step} is not used: {manifest.in_words(problems)}")
        logger.warning(
            "a checkpoint was changed after it was written", extra={"path": str(path), "words": given_up[-1]}
        )
    return given_up


def discard_unusable(checkpoint: Path, run_config: str | None = None) -> None:
    """Remove what there is of this checkpoint, unless it is whole and, where that is given, of this RunConfig."""
    if checkpoint.exists() and _usable(checkpoint, run_config) is None:
        _remove(checkpoint)


@contextmanager
def saving(checkpoint: Path) -> Iterator[None]:
    """Write (a part of) a checkpoint.

    Raises:
        WorkspaceFull: there is no space left for it.
    """
    try:
        yield
    except Exception as error:
        if full_disk_hint(error) is None and not (_TORCH_WRITER in str(error) and is_full(checkpoint.parent)):
            raise
        raise WorkspaceFull(f"no space is left for {checkpoint.name}: {error}", checkpoint) from error


def sync_part(checkpoint: Path, rank: int) -> dict[str, int]:
    """Flush what this rank has written to the disk. Call it on every rank, after it has written its part.

    Returns:
        Sizes in bytes by relative path.
    """
    if rank == 0:
        (checkpoint / TRAINING_ARGS_FILE).unlink(missing_ok=True)
        (checkpoint / COMPLETE_FILE).unlink(missing_ok=True)
    paths = [path for path in checkpoint.rglob("*") if path.is_file() and _writer(path) == rank]
    sync_files(paths)
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in paths}


def digests_of_part(checkpoint: Path, rank: int) -> dict[str, str]:
    """SHA-256 of what this rank has written, by relative path. Call it once every rank has written its part."""
    others = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if _writer(path) != rank}
    return {file.path: file.sha256 for file in manifest.list_files(checkpoint, others)}


def _writer(path: Path) -> int:
    rank = _OF_A_RANK.search(path.name)
    return int(rank[1]) if rank else 0


def complete(
    checkpoint: Path,
    written: Written,
    *,
    step: int,
    world_size: int,
    zero_stage: int,
    final: bool,
    eval_loss: float | None = None,
    run_config: str | None = None,
) -> Complete:
    """Mark a checkpoint whole. Call it on one rank, after every rank has flushed its part to the disk.

    So COMPLETE.json cannot outlive the files that it names.
    """
    mark = Complete(
        step=step,
        world_size=world_size,
        zero_stage=zero_stage,
        final=final,
        eval_loss=eval_loss,
        run_config=run_config,
        files=written.sizes,
        sha256=written.sha256,
    )
    write_atomic(checkpoint / COMPLETE_FILE, json.dumps(mark.to_dict(), indent=1).encode(), durable=True)
    return mark


def prune(directory: Path, keep: int, run_config: str | None = None, select: Select | None = None) -> list[Path]:
    """Remove all but the newest `keep` whole checkpoints of this RunConfig, and the best if that is to be exported.

    Once there is one, those of other RunConfigs go, and the half ones that are older than the newest whole one.

    Returns:
        What was removed.
    """
    checkpoints = whole(directory, run_config)
    if not checkpoints:
        return []
    retained = {path for path, _ in checkpoints[-keep:]}
    if select is Select.BEST and (leading := best(checkpoints)):
        retained.add(leading[0])
    last = checkpoints[-1][1].step
    gone = [path for path in _all(directory) if path not in retained and (_step(path) <= last or _is_whole(path))]
    for path in gone:
        _remove(path)
        logger.debug("removed a checkpoint", extra={"path": str(path)})
    return gone


def _usable(checkpoint: Path, run_config: str | None) -> Complete | None:
    mark = read_complete(checkpoint)
    if mark is None or (run_config and mark.run_config not in (None, run_config)):
        return None
    return mark


def _is_whole(checkpoint: Path) -> bool:
    return read_complete(checkpoint) is not None


def _remove(checkpoint: Path) -> None:
    # COMPLETE.json first: a removal that is cut short must not leave something that looks whole.
    (checkpoint / COMPLETE_FILE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _all(directory: Path) -> list[Path]:
    return [path for path in directory.glob(f"{_PREFIX}*") if path.is_dir() and _step(path) >= 0]


def _step(checkpoint: Path) -> int:
    digits = checkpoint.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdigit() else -1
