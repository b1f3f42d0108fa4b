"""The models that a job reads, and where its pods find them."""

from collections.abc import Callable
from typing import NamedTuple

from hone.api.finetunejob import FineTuneJobSpec, ModelSource
from hone.core.finetunejob.run import Run
from hone.core.podspec import ClaimMount, Mount


class Reads(NamedTuple):
    """A model that a job may read.

    Attributes:
        field: path of the field that names it.
        source: its source in a spec; None where the spec names none.
    """

    field: str
    source: Callable[[FineTuneJobSpec], ModelSource | None]


READS: dict[str, Reads] = {
    "model": Reads("spec.model", lambda spec: spec.model),
}
"""Every model that a job may read, by the name of its directory in the RunConfig (`Paths`)."""


def models(spec: FineTuneJobSpec) -> dict[str, ModelSource]:
    """The models that the job reads, by the names of `READS`."""
    found = {name: reads.source(spec) for name, reads in READS.items()}
    return {name: source for name, source in found.items() if source is not None}


def model_paths(run: Run) -> dict[str, str]:
    """The models' directories in the pods, by the names of `READS`."""
    return {name: f"{_directory(name)}/{source.claim.path}" for name, source in models(run.spec).items()}


def model_mounts(run: Run) -> list[Mount]:
    """Mounts of the models, read-only."""
    return [ClaimMount(source.claim.name, _directory(name)) for name, source in models(run.spec).items()]


def _directory(name: str) -> str:
    return f"/mnt/{name.replace('_', '-')}"
