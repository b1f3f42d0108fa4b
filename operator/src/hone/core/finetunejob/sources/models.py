"""The models that a job reads: from a claim, another job, a uri or an image; prepare downloads, and merges adapters."""

from collections.abc import Callable
from typing import NamedTuple

from hone.api.finetunejob import FineTuneJobSpec, ModelSource
from hone.api.finetunejob_status import FoundModel
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.report import ARTIFACT_DIR
from hone.contract.runconfig import CACHE, MOUNTS, Download, Merge, UpstreamArtifact
from hone.core import names
from hone.core.downloads import fetched, words
from hone.core.finetunejob.run import WORKSPACE_DIRECTORY, Run
from hone.core.finetunejob.sources.source import Dependency, Source, in_image
from hone.core.ownership import claim_ref
from hone.core.podspec import ClaimMount, Mount


class Reads(NamedTuple):
    """A model that a job may read.

    Attributes:
        field: path of the field that names it.
        source: its source in a spec; None if the spec names none.
        fits: whether the model of a job with the first objective can be used by a job with the second.
        unfit: what a model that does not fit lacks, and what to name instead.
    """

    field: str
    source: Callable[[FineTuneJobSpec], ModelSource | None]
    fits: Callable[[Objective, Objective], bool]
    unfit: str


def _generates_text(objective: Objective) -> bool:
    return not OBJECTIVES[objective].has_head


_NO_TEXT = "whose model does not generate text; name a job whose model does, such as one with objective SFT"

READS: dict[str, Reads] = {
    "model": Reads(
        "spec.model",
        lambda spec: spec.model,
        # The head of another objective has other outputs, so its weights cannot be loaded.
        lambda theirs, ours: theirs == ours or _generates_text(theirs),
        _NO_TEXT,
    ),
    "rewardModel": Reads(
        "spec.reward.model",
        lambda spec: spec.reward.model if spec.reward else None,
        lambda theirs, ours: OBJECTIVES[theirs].scores_answers,
        "whose model does not score answers; name a job with objective Reward",
    ),
    "teacher": Reads("spec.teacher", lambda spec: spec.teacher, lambda theirs, ours: _generates_text(theirs), _NO_TEXT),
}
"""Every model that a job may read, by the name of its directory in the RunConfig (`Paths`)."""


def models(spec: FineTuneJobSpec) -> dict[str, ModelSource]:
    """The models that the job reads, by the names of `READS`."""
    sources = {name: reads.source(spec) for name, reads in READS.items()}
    return {name: source for name, source in sources.items() if source is not None}


def model_name(source: ModelSource) -> str:
    """The model's name in reports: its path, the job that produced it, its URI, or its image with the digest."""
    if source.image:
        return source.image.reference
    return source.claim.path if source.claim else source.job_ref.name if source.job_ref else source.uri or ""


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
    if source.image:
        return in_image(source.image, field, directory)
    if source.uri:
        return _download(run, name, source)
    # Until another job's model exists, its path is only a placeholder: no pod is created before.
    upstream = run.upstream_models.get(name) if source.job_ref else None
    if upstream is None:
        return Source(path=f"{directory}/{ARTIFACT_DIR}")
    return _adapter(upstream, name) if upstream.base_claim else _model(upstream, name)


def written_models(run: Run) -> list[Mount]:
    """What pods other than prepare's mount, read-only, of the models that it has written.

    Prepare has made these directories: the kubelet would make them as root.
    """
    written = {_volume(entry) for source in model_sources(run).values() for entry in source.materialize}
    claims = {WORKSPACE_DIRECTORY: run.workspace_claim, CACHE: run.cache_claim or ""}
    return [ClaimMount(claims[each], f"{each}/models", sub_path="models") for each in claims if each in written]


def _volume(entry: Merge | Download) -> str:
    into = entry.merged if isinstance(entry, Merge) else entry.downloaded
    return CACHE if into.startswith(f"{CACHE}/") else WORKSPACE_DIRECTORY


def _download(run: Run, name: str, source: ModelSource) -> Source:
    """A model that prepare downloads."""
    into = f"{run.download_directory}/models/{run.uid}-{words(name, '-')}"
    download, secrets = fetched(run.settings, READS[name].field, name, source, into)
    return Source(path=into, secrets=secrets, materialize=(download,), prepare_only=True)


def _model(upstream: FoundModel, name: str) -> Source:
    """A whole model of another job: read in place."""
    return Source(
        path=f"{_directory(name)}/{ARTIFACT_DIR}",
        mounts=(ClaimMount(upstream.claim, _directory(name)),),
        dependencies=(_claim_of_another_job(upstream, name),),
        artifacts=(_artifact(upstream, name),),
    )


def _adapter(upstream: FoundModel, name: str) -> Source:
    """An adapter of another job: prepare merges it with its base into the workspace.

    The other job does not do it: it may have ended long ago, and served adapters stay small.
    """
    directory, base_claim = _directory(name), str(upstream.base_claim)
    # Named by its content, so that jobs with the same workspace share it.
    merged = f"{WORKSPACE_DIRECTORY}/models/{names.digest(upstream.digest, length=16)}"
    merge = Merge(
        field=READS[name].field,
        adapter=f"{directory}/{ARTIFACT_DIR}",
        base=f"{directory}-base/{upstream.base_path}",
        base_digest=upstream.base_digest,
        merged=merged,
    )
    remedy = f"create it again with the same model on it: FineTuneJob {upstream.job!r} tuned that model"
    return Source(
        path=merged,
        mounts=(ClaimMount(upstream.claim, directory), ClaimMount(base_claim, f"{directory}-base")),
        dependencies=(
            _claim_of_another_job(upstream, name),
            Dependency(f"{READS[name].field}.jobRef.name", claim_ref(base_claim), remedy=remedy),
        ),
        materialize=(merge,),
        prepare_only=True,
        artifacts=(_artifact(upstream, name),),
    )


def _artifact(upstream: FoundModel, name: str) -> UpstreamArtifact:
    path = f"{_directory(name)}/{ARTIFACT_DIR}"
    return UpstreamArtifact(field=f"{READS[name].field}.jobRef.name", path=path, digest=upstream.digest)


def _claim_of_another_job(upstream: FoundModel, name: str) -> Dependency:
    remedy = f"run FineTuneJob {upstream.job!r} again, then delete this job and apply it again"
    return Dependency(f"{READS[name].field}.jobRef.name", claim_ref(upstream.claim), remedy=remedy)


def _directory(name: str) -> str:
    return f"{MOUNTS}/{words(name, '-')}"
