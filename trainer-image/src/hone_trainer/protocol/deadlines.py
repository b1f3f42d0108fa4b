"""How long a run may stand still before it counts as stuck, from its spec and its plan, for launcher and ranks alike.

A hang is found by the launcher (`hone_trainer/launcher/watchdog.py`). Collectives wait for longer than it does, so that
a hang is reported as one, with stack traces, and not as a lost connection of the ranks that waited.
"""

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig

USUAL_TIMES = 10
"""Something that takes as long as so many of its kind usually do is stuck, unless the floor of the spec is longer."""
FIRST_TIMES = 10
"""Until the first optimizer step is done, nothing is usual: kernels are compiled, connections made. Floors for it."""
SAVE_TIMES = 3
"""A save counts as stuck after the floor and so many times what the plan expects of it: a volume that was idle when its
speed was measured may be busy, or have spent its burst."""
SLOWEST_BYTES_PER_SECOND = 50_000_000
"""Speed of a volume whose speed was not measured."""
_MARGIN = 2
_FILE_BYTES_PER_PARAMETER = 2


def usual_seconds(config: RunConfig, usual: float | None) -> float:
    """For how long training may not move.

    Args:
        config: the run.
        usual: what the slowest kind of its parts takes, in seconds; None before the first optimizer step is done.
    """
    floor = config.hang_floor_seconds
    return FIRST_TIMES * floor if usual is None else max(floor, USUAL_TIMES * usual)


def save_seconds(config: RunConfig, plan: Plan) -> float:
    """For how long a save may show no sign of life: a large file can be flushed to the disk all that time."""
    expected = plan.checkpoint_seconds
    if expected is None:
        expected = plan.checkpoint_bytes / SLOWEST_BYTES_PER_SECOND
    return config.hang_floor_seconds + SAVE_TIMES * expected


def collective_seconds(config: RunConfig, plan: Plan) -> int:
    """How long ranks wait for each other, in a collective or when they form groups.

    One may save while the others wait, or load the model from a slower volume than theirs.
    """
    load = config.hang_floor_seconds + _FILE_BYTES_PER_PARAMETER * plan.parameters / SLOWEST_BYTES_PER_SECOND
    return int(_MARGIN * max(usual_seconds(config, None), save_seconds(config, plan), load))
