"""Continues the training of an earlier job of the same spec: prepare takes over its newest checkpoint.

The earlier run's directory is on the same workspace, `<workspace>/<namespace>/<name>/<uid>/`, with its plan and its
checkpoints. A checkpoint is taken over, with its digests, as one of this run; the next attempt resumes from it.
"""

import logging
import os
import shutil
from pathlib import Path

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from hone.contract.runconfig import RunConfig
from hone.contract.settings import Select
from hone_trainer.protocol import limits, manifest
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import PLAN_FILE, PlanFile
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.protocol.volumes import shown
from hone_trainer.training import checkpoint
from hone_trainer.training.checkpoint import CHECKPOINTS, Complete, Written
from hone_trainer.training.validation import validation_of

FIELD = "spec.checkpoint.continueFrom"
_PLANNED = ("objective", "method", "total_steps", "world_size", "zero_stage", "precision", "packing")
"""What a checkpoint depends on in the plan, in addition to the digests."""

BYTES_PER_SECOND = 5_000_000
"""How slowly a checkpoint may be read."""

logger = logging.getLogger(__name__)


def take_over(config: RunConfig, planned: PlanFile) -> int | None:
    """Take over the newest whole checkpoint of the job that this one continues; returns its step, None without one.

    If that was done before, nothing happens.

    Args:
        config: of the run, which may continue none.
        planned: its plan, which must equal that of the earlier job where checkpoints depend on it.

    Raises:
        BadInput: there is no such checkpoint, or it was changed after it was written.
    """
    name = config.checkpoint.continue_from
    if name is None:
        return None
    if newest := checkpoint.newest(config):
        return newest[1].step
    parent = Path(config.paths.workspace) / config.job.namespace / name
    runs = [path for path in _directories(parent) if path != Path(config.paths.run)]
    if not runs:
        raise BadInput(FIELD, f"the workspace has no run of a job {name!r}", "Use the claim that this job had.")
    reasons = {run: _difference(run, planned) for run in runs}
    candidates = [each for run in runs if reasons[run] is None for each in checkpoint.whole(run / CHECKPOINTS)]
    if not candidates:
        why = next((reason for reason in reasons.values() if reason), "it has no complete checkpoint")
        raise BadInput(FIELD, f"job {name!r} cannot be continued: {why}", "Remove it to train from the beginning.")
    path, mark = max(candidates, key=lambda item: item[1].step)
    limits.allow(sum(mark.files.values()) / BYTES_PER_SECOND)
    if problems := checkpoint.differences(path, mark):
        raise BadInput(
            FIELD,
            f"the checkpoint of step {mark.step} was changed after it was written: {manifest.in_words(problems)}",
            "Remove it to train from the beginning.",
        )
    mark = mark.model_copy(update={"final": mark.final and _has_ended(config, path, mark, planned)})
    for each, its in _to_copy(path, mark, checkpoint.whole(path.parent), planned):
        _copy(config, each, its)
    return mark.step


def _has_ended(config: RunConfig, path: Path, mark: Complete, planned: PlanFile) -> bool:
    """Whether the training ends with this checkpoint by this spec too, whose `earlyStopping` may be another."""
    stopping = config.evaluation.early_stopping
    by_patience = stopping is not None and validation_of(path).since_best >= stopping.patience
    return by_patience or mark.step >= planned.plan.total_steps


def _to_copy(
    path: Path, mark: Complete, others: list[tuple[Path, Complete]], planned: PlanFile
) -> list[tuple[Path, Complete]]:
    """The checkpoint to continue from, and before it the best one if that may be exported.

    One that was changed is left out: an evaluation to come then decides.
    """
    leading = checkpoint.best(others) if planned.plan.checkpoint_select is Select.BEST else None
    if leading is None or leading[0] == path or checkpoint.differences(*leading):
        return [(path, mark)]
    return [leading, (path, mark)]


def _difference(run: Path, planned: PlanFile) -> str | None:
    """What about an earlier run keeps it from being continued; None if nothing does."""
    try:
        earlier = PlanFile.model_validate_json((run / PLAN_FILE).read_text())
    except (OSError, ValidationError):
        return "it has no plan"
    if earlier.training_digest is None:
        return "an earlier release of Hone ran it"
    if earlier.model_digest != planned.model_digest:
        return "it has another base model"
    if earlier.dataset.digest != planned.dataset.digest:
        return "it has other data"
    if earlier.training_digest != planned.training_digest:
        return "it has another spec"
    for fact in _PLANNED:
        if getattr(earlier.plan, fact) != getattr(planned.plan, fact):
            return f"its plan has another {to_camel(fact)}"
    return None


def _copy(config: RunConfig, source: Path, mark: Complete) -> None:
    target = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(config), mark.step)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        source, target, copy_function=_link, ignore=shutil.ignore_patterns(checkpoint.COMPLETE_FILE), symlinks=True
    )
    checkpoint.complete(
        target,
        Written(mark.files, mark.sha256),
        step=mark.step,
        world_size=mark.world_size,
        zero_stage=mark.zero_stage,
        final=mark.final,
        eval_loss=mark.eval_loss,
        run_config=digest_of(config),
    )
    logger.info("Checkpoint taken over", extra={"checkpoint": str(source), "step": mark.step})


def _link(source: str, target: str) -> None:
    """The same file under another name: nobody changes files of a checkpoint. A copy where volumes have no links."""
    if Path(source).is_symlink():
        raise BadInput(FIELD, f"{shown(source)} is a link, which no checkpoint has", "Remove it.")
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def _directories(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []
