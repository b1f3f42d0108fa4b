"""The models that a job reads: from a claim, or from another job, whose adapter prepare merges with its base."""

import re
from collections.abc import Callable
from typing import NamedTuple

from hone.api.finetunejob import FineTuneJobSpec, ModelSource
from hone.api.finetunejob_status import FoundModel
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.report import ARTIFACT_DIR
from hone.contract.runconfig import Merge
from hone.core import names
from hone.core.finetunejob.run import WORKSPACE_DIRECTORY, Run
from hone.core.finetunejob.sources.source import Dependency, Source
from hone.core.ownership import claim_ref
from hone.core.podspec import ClaimMount


class Reads(NamedTuple):
    """A model that a job may read.

    Attributes:
        field: path of the field that names it.
        source: its source in a spec; None where the spec names none.
        fits: whether the model of a job with the first objective fits, where ours is the second.
        unfit: what such a model lacks, and what to name instead.
    """

    field: str
    source: Callable[[FineTuneJobSpec], ModelSource | None]
    fits: Callable[[Objective, Objective], bool]
    unfit: str


def _writes(objective: Objective) -> bool:
    return not OBJECTIVES[objective].has_head


_SILENT = "whose model writes no answers; name one that makes a model which does, such as one with objective SFT"

READS: dict[str, Reads] = {
    "model": Reads(
        "spec.model",
        lambda spec: spec.model,
        # Another objective's head has other outputs, with which no weights are loaded.
        lambda theirs, ours: theirs == ours or _writes(theirs),
        _SILENT,
    ),
    "rewardModel": Reads(
        "spec.reward.model",
        lambda spec: spec.reward.model if spec.reward else None,
        lambda theirs, ours: theirs == Objective.REWARD,
        "whose model gives no score; name one with objective Reward",
    ),
    "teacher": Reads("spec.teacher", lambda spec: spec.teacher, lambda theirs, ours: _writes(theirs), _SILENT),
}
"""Every model that a job may read, by the name of its directory in the RunConfig (`Paths`)."""


def models(spec: FineTuneJobSpec) -> dict[str, ModelSource]:
    """The models that the job reads, by the names of `READS`."""
    sources = {name: reads.source(spec) for name, reads in READS.items()}
    return {name: source for name, source in sources.items() if source is not None}


def model_name(source: ModelSource) -> str:
    """What reports call the model: its path, or the job that made it."""
    return source.claim.path if source.claim else source.job_ref.name if source.job_ref else ""


def model_sources(run: Run) -> dict[str, Source]:
    """The models, by the names of `READS`."""
    return {name: _source(run, name, source) for name, source in models(run.spec).items()}


def _source(run: Run, name: str, source: ModelSource) -> Source:
    directory, field = _directory(name), READS[name].field
    if source.claim:
        return Source(
            path=f"{directory}/{source.claim.path}",
            mounts=(ClaimMount(source.claim.name, directory),),
            dependencies=(Dependency(f"{field}.claim.name", claim_ref(source.claim.name)),),
        )
    # Until another job's model is there, its path is a guess that no pod sees: none is created before.
    upstream = run.upstream_models.get(name) if source.job_ref else None
    if upstream is None:
        return Source(path=f"{directory}/{ARTIFACT_DIR}")
    return _adapter(upstream, name) if upstream.base_claim else _model(upstream, name)


def _model(upstream: FoundModel, name: str) -> Source:
    """A whole model that another job made: read where it lies."""
    return Source(
        path=f"{_directory(name)}/{ARTIFACT_DIR}",
        mounts=(ClaimMount(upstream.claim, _directory(name)),),
        dependencies=(_claim_of_another_job(upstream, name),),
    )


def _adapter(upstream: FoundModel, name: str) -> Source:
    """An adapter that another job made: prepare merges it with its base into the workspace.

    There, and not by the job that made it: that job may have ended long ago, and served adapters stay small.
    """
    directory, base_claim = _directory(name), str(upstream.base_claim)
    # Named by its content, so that jobs on one workspace share it.
    merged = f"{WORKSPACE_DIRECTORY}/models/{names.digest(upstream.digest, length=16)}"
    merge = Merge(
        field=READS[name].field,
        adapter=f"{directory}/{ARTIFACT_DIR}",
        base=f"{directory}-base/{upstream.base_path}",
        base_digest=upstream.base_digest,
        merged=merged,
    )
    remedy = f"make it again with the same model on it: FineTuneJob {upstream.job!r} made an adapter of that"
    return Source(
        path=merged,
        mounts=(ClaimMount(upstream.claim, directory), ClaimMount(base_claim, f"{directory}-base")),
        dependencies=(
            _claim_of_another_job(upstream, name),
            Dependency(f"{READS[name].field}.jobRef.name", claim_ref(base_claim), remedy=remedy),
        ),
        materialize=(merge,),
        prepare_only=True,
    )


def _claim_of_another_job(upstream: FoundModel, name: str) -> Dependency:
    remedy = f"have FineTuneJob {upstream.job!r} make its model again, then delete this job and apply it again"
    return Dependency(f"{READS[name].field}.jobRef.name", claim_ref(upstream.claim), remedy=remedy)


def _directory(name: str) -> str:
    return "/mnt/" + re.sub("[A-Z]", lambda capital: f"-{capital.group().lower()}", name)
