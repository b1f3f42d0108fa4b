"""Whether the volumes can hold what a run writes: its checkpoints, and its artifact."""

import shutil
from pathlib import Path

from hone.contract.methods import MethodType
from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Checkpoint, Select
from hone_trainer.planning import needs
from hone_trainer.planning.choices.placement import weight_bytes
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import gib


def check_output(config: RunConfig, weights_bytes: int, *, serves_adapter: bool) -> None:
    """Check that a whole model fits into the artifact's claim, while its size can still be changed.

    Args:
        config: the run.
        weights_bytes: size of the base model's weights, whose data type a whole model keeps.
        serves_adapter: whether vLLM serves an adapter of this model; else it is merged.

    Raises:
        BadInput: it does not.
    """
    whole = config.merge_output or needs.has_head(config.objective) or not serves_adapter
    if config.method.type.adapts and not whole:
        return
    if config.output_bytes is not None and weights_bytes > config.output_bytes:
        raise BadInput(
            "spec.output.size",
            f"the artifact is a whole model of {gib(weights_bytes)}, but its claim has {gib(config.output_bytes)}",
            f"Set it to at least {gib(weights_bytes + weights_bytes // 10)}.",
        )


def exported_bytes(plan: Plan) -> int:
    """What the last checkpoint has more than others: under ZeRO the whole weights, which finish exports."""
    if plan.zero_stage == 0:
        return 0
    if MethodType(plan.method).adapts:
        return 4 * plan.trainable_parameters
    return weight_bytes(plan.precision) * plan.parameters


def needed_bytes(plan: Plan, keep: int) -> int:
    """Most bytes that the checkpoints of a run take at any time, where so many are kept."""
    if plan.checkpoint_select is not Select.BEST:
        return (keep + 1) * plan.checkpoint_bytes + exported_bytes(plan)
    # The best one in addition; and each that is better than all before has what finish exports.
    return (keep + 2) * (plan.checkpoint_bytes + exported_bytes(plan))


def fit_to_volume(workspace: Path, plan: Plan, checkpoint: Checkpoint) -> tuple[Plan, list[str]]:
    """The plan, which selects the last checkpoint if there is no room for the best one and the spec does not ask for
    it; and a warning if others that share the volume leave too little.

    Args:
        workspace: a directory on the volume.
        plan: with the estimated size of one checkpoint.
        checkpoint: what the user configured.

    Raises:
        BadInput: the checkpoints would not fit into the empty volume.
    """
    if (
        plan.checkpoint_select is Select.BEST
        and checkpoint.select is None
        and needed_bytes(plan, checkpoint.keep) > shutil.disk_usage(workspace).total
    ):
        why = "The workspace cannot hold the best checkpoint in addition to those that are kept."
        reasons = {**plan.reasons, "checkpointSelect": why}
        plan = plan.model_copy(update={"checkpoint_select": Select.LAST, "reasons": reasons})
    short = check_volume(workspace, plan, checkpoint.keep)
    return plan, [short] if short else []


def check_volume(workspace: Path, plan: Plan, keep: int) -> str | None:
    """Check that all checkpoints fit, and one more: the oldest is removed only once the next one is complete.

    Args:
        workspace: a directory on the volume.
        plan: with the estimated size of one checkpoint.
        keep: checkpoints to keep.

    Returns:
        A warning where they do not fit into what is free now; others may share the volume.

    Raises:
        BadInput: they would not fit into the empty volume.
    """
    usage, needed = shutil.disk_usage(workspace), needed_bytes(plan, keep)
    others = ", the best one and" if plan.checkpoint_select is Select.BEST else " and"
    each = gib(plan.checkpoint_bytes)
    message = f"{keep} checkpoints{others} the one being written, of about {each} each, need {gib(needed)}"
    if needed > usage.total:
        raise BadInput(
            "spec.workspace.size",
            f"{message}, but the volume has {gib(usage.total)}",
            f"Set it to at least {gib(2 * needed)}, or lower spec.checkpoint.keep.",
        )
    if needed > usage.free:
        return f"{message}, but {gib(usage.free)} are free: raise spec.workspace.size, or free space on the workspace."
    return None
