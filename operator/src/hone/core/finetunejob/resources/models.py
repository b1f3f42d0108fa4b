"""The models that a job reads, and where its pods find them."""

import re
from collections.abc import Callable
from typing import NamedTuple

from hone.api.finetunejob import FineTuneJobSpec, ModelSource
from hone.api.finetunejob_status import FoundModel
from hone.contract.objectives import OBJECTIVES
from hone.contract.report import ARTIFACT_DIR
from hone.contract.runconfig import Merge
from hone.contract.settings import Objective
from hone.core import names
from hone.core.finetunejob.run import Run, Step
from hone.core.podspec import ClaimMount, Mount

WORKSPACE_DIRECTORY = "/mnt/workspace"


class Reads(NamedTuple):
    """A model that a job may read.

    Attributes:
        field: path of the field that names it.
        source: its source in a spec; None where the spec names none.
        fits: whether it may be what a job of the first objective made, where ours is the second.
        unfit: what such a model lacks, and what to name instead.
    """

    field: str
    source: Callable[[FineTuneJobSpec], ModelSource | None]
    fits: Callable[[Objective, Objective], bool]
    unfit: str


def _writes(made: Objective) -> bool:
    return not OBJECTIVES[made].has_head


_SILENT = "whose model writes no answers; name one that makes a model which does, such as one with objective SFT"

READS: dict[str, Reads] = {
    "model": Reads(
        "spec.model",
        lambda spec: spec.model,
        # Another objective's head has other outputs, with which no weights are loaded.
        lambda made, ours: made == ours or _writes(made),
        _SILENT,
    ),
    "rewardModel": Reads(
        "spec.reward.model",
        lambda spec: spec.reward.model if spec.reward else None,
        lambda made, ours: made == Objective.REWARD,
        "whose model gives no score; name one with objective Reward",
    ),
    "teacher": Reads("spec.teacher", lambda spec: spec.teacher, lambda made, ours: _writes(made), _SILENT),
}
"""Every model that a job may read, by the name of its directory in the RunConfig (`Paths`)."""


def models(spec: FineTuneJobSpec) -> dict[str, ModelSource]:
    """The models that the job reads, by the names of `READS`."""
    found = {name: reads.source(spec) for name, reads in READS.items()}
    return {name: source for name, source in found.items() if source is not None}


def model_paths(run: Run) -> dict[str, str]:
    """The models' directories in the pods, by the names of `READS`.

    Of another job's model that is not found yet it is a guess, which no pod sees: none is made before.
    """
    return {name: _path(run, name, source) for name, source in models(run.spec).items()}


def model_name(source: ModelSource) -> str:
    """What reports call the model: its path, or the job that made it."""
    return source.claim.path if source.claim else source.job_ref.name if source.job_ref else ""


def merges(run: Run) -> list[Merge]:
    """The adapters of other jobs, which prepare merges with their bases into the workspace, one after another.

    There, and not by the job that made one: that job may have ended long ago, and served adapters stay small.
    """
    return [
        Merge(
            field=READS[name].field,
            adapter=f"{_directory(name)}/{ARTIFACT_DIR}",
            base=f"{_base_directory(name)}/{found.base_path}",
            base_digest=found.base_digest,
            merged=_merged(found),
        )
        for name, found in _adapters(run).items()
    ]


def model_mounts(run: Run, step: Step) -> list[Mount]:
    """Mounts of the models, read-only. Adapters and their bases are mounted for prepare alone, which merges them."""
    mounts: list[Mount] = []
    adapters = _adapters(run)
    for name, source in models(run.spec).items():
        found = run.found.get(name)
        if source.claim:
            mounts.append(ClaimMount(source.claim.name, _directory(name)))
        elif found and (name not in adapters or step == Step.PREPARE):
            mounts.append(ClaimMount(found.claim, _directory(name)))
        if name in adapters and step == Step.PREPARE:
            mounts.append(ClaimMount(str(adapters[name].base_claim), _base_directory(name)))
    return mounts


def _adapters(run: Run) -> dict[str, FoundModel]:
    """The models of other jobs that are adapters."""
    return {
        name: run.found[name]
        for name, source in models(run.spec).items()
        if source.job_ref and name in run.found and run.found[name].base_claim
    }


def _path(run: Run, name: str, source: ModelSource) -> str:
    if source.claim:
        return f"{_directory(name)}/{source.claim.path}"
    adapter = _adapters(run).get(name)
    return _merged(adapter) if adapter else f"{_directory(name)}/{ARTIFACT_DIR}"


def _merged(found: FoundModel) -> str:
    """Named by what is in it, so that jobs on one workspace share it."""
    return f"{WORKSPACE_DIRECTORY}/models/{names.digest(found.digest, length=16)}"


def _directory(name: str) -> str:
    return "/mnt/" + re.sub("[A-Z]", lambda found: f"-{found.group().lower()}", name)


def _base_directory(name: str) -> str:
    return f"{_directory(name)}-base"
