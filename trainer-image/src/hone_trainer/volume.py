"""Whether the workspace's volume can hold a run's checkpoints."""

import shutil
from pathlib import Path

from hone_trainer.errors import BadInput
from hone_trainer.memory import gib


def check_volume(workspace: Path, checkpoint_bytes: int, keep: int) -> str | None:
    """See that the kept checkpoints fit, and one more: the oldest goes only once the next one is whole.

    Args:
        workspace: a directory on the volume.
        checkpoint_bytes: estimated size of one checkpoint.
        keep: checkpoints to keep.

    Returns:
        A warning where they do not fit into what is free now; others may share the volume.

    Raises:
        BadInput: they would not fit into the empty volume.
    """
    usage, needed = shutil.disk_usage(workspace), (keep + 1) * checkpoint_bytes
    said = f"{keep} checkpoints and the next one, of about {gib(checkpoint_bytes)} each, need {gib(needed)}"
    if needed > usage.total:
        raise BadInput(
            "spec.workspace.size",
            f"{said}; the volume has {gib(usage.total)}",
            f"Give it at least {gib(2 * needed)}, or lower spec.checkpoint.keep.",
        )
    if needed > usage.free:
        return f"{said}; {gib(usage.free)} are free on the workspace: raise spec.workspace.size or make room."
    return None
