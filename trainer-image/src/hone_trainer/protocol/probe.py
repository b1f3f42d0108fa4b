"""What two optimizer steps on the longest rows measured before a run began: `<run>/probe.json`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from hone.contract.base import Model
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.runconfig import digest_of

PROBE_ENV = "HONE_PROBE"
"""Environment variable that makes ranks try two steps out instead of training; set by the launcher."""
PROBE_FILE = "probe.json"
PROBE_STEPS = 2


class Probe(Model):
    """The content of probe.json."""

    run_config: str
    """Digest of the RunConfig it was measured with."""
    level: Annotated[int, Field(alias="rung")]
    """Level of the memory fallback that the steps were run at."""
    peak_bytes: int
    """Most memory that any process took: on a GPU by its tensors, on the CPU above the level after imports."""
    seconds_per_step: float
    """Of the second step; the first one warms up."""


def load_probe(config: RunConfig, level: int) -> Probe | None:
    """What was measured for this very RunConfig at this level of the memory fallback, or None."""
    try:
        probe = Probe.model_validate_json((Path(config.paths.run) / PROBE_FILE).read_text())
    except (OSError, ValidationError):
        return None
    return probe if (probe.run_config, probe.level) == (digest_of(config), level) else None


def save_probe(config: RunConfig, *, level: int, peak_bytes: int, seconds_per_step: float) -> Probe:
    """Write what was measured."""
    measured = Probe(
        run_config=digest_of(config), level=level, peak_bytes=peak_bytes, seconds_per_step=seconds_per_step
    )
    write_atomic(Path(config.paths.run) / PROBE_FILE, measured.to_json().encode(), durable=True)
    return measured
