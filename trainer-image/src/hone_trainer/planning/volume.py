"""Whether the volumes can hold what a run writes: its checkpoints, and its artifact."""

import shutil
from pathlib import Path

from hone.contract.methods import MethodType
from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.planning import needs
from hone_trainer.planning.choices.placement import weight_bytes
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import gib


def check_output(config: RunConfig, weights_bytes: int, *, adapts_experts: bool) -> None:
    """Check that a whole model fits into the artifact's claim, while its size can still be changed.

    Args:
        config: the run.
        weights_bytes: size of the base model's weights, whose data type a whole model keeps.
        adapts_experts: whether an adapter is put on experts, so that it is merged.

    Raises:
        BadInput: it does not.
    """
    whole = config.merge_output or needs.has_head(config.objective) or adapts_experts
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
    usage, each = shutil.disk_usage(workspace), plan.checkpoint_bytes
    needed = (keep + 1) * each + exported_bytes(plan)
    message = f"{keep} checkpoints and the one being written, of about {gib(each)} each, need {gib(needed)}"
    if needed > usage.total:
        raise BadInput(
            "spec.workspace.size",
            f"{message}, but the volume has {gib(usage.total)}",
            f"Set it to at least {gib(2 * needed)}, or lower spec.checkpoint.keep.",
        )
    if needed > usage.free:
        return f"{message}, but {gib(usage.free)} are free: raise spec.workspace.size, or free space on the workspace."
    return None
