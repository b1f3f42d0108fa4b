"""Prepare: one CPU pod that checks and prepares data and models, and plans the training."""

from collections.abc import Sequence
from typing import Any

from hone.api.finetunejob_status import MAX_DOWNLOADS, FineTuneJobStatus, MountedImage, Phase
from hone.contract.results import StepResult
from hone.contract.runconfig import CACHE, Merge
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.run import PREPARE, Run
from hone.core.finetunejob.sources import downloads, images
from hone.core.finetunejob.sources.benchmarks import benchmark_sources
from hone.core.finetunejob.sources.data import data_sources, template_sources
from hone.core.finetunejob.sources.models import model_sources
from hone.core.finetunejob.sources.rewards import reward_sources
from hone.core.finetunejob.sources.scorers import scorer_sources
from hone.core.finetunejob.steps.step import Step, removed_later
from hone.core.podspec import ClaimMount, Mount, resources


def _is_done(run: Run, status: FineTuneJobStatus) -> bool:
    return status.plan is not None


def _take_result(run: Run, status: Draft, results: Sequence[StepResult]) -> bool:
    result = results[0] if results else None
    if result is None or not result.plan or not result.dataset:
        return False
    status.plan, status.dataset = result.plan, result.dataset
    status.downloads = result.downloads[:MAX_DOWNLOADS] or None
    status.images = [MountedImage(**image._asdict()) for image in images(run)[:MAX_DOWNLOADS]] or None
    return True


def _phase(has_attempt: bool, has_started: bool) -> Phase:
    return Phase.PREPARING if has_attempt else Phase.PENDING


def _mounts(run: Run) -> list[Mount]:
    read = (
        *data_sources(run).values(),
        *template_sources(run),
        *reward_sources(run),
        *benchmark_sources(run),
        *scorer_sources(run),
    )
    cache = [ClaimMount(run.cache_claim, CACHE, read_only=False)] if run.cache_claim and downloads(run) else []
    return [*(mount for source in read for mount in source.mounts), *cache]


def _resources(run: Run) -> dict[str, Any]:
    entries = (entry for source in model_sources(run).values() for entry in source.materialize)
    merges = any(isinstance(entry, Merge) for entry in entries)
    # A merge holds all weights of a base model in memory, whose size is not known here.
    return resources(run.prepare.resources, {"cpu": "500m", "memory": "2Gi"}, memory_limit="128Gi" if merges else "8Gi")


PREPARE_STEP = Step(
    name=PREPARE,
    module="hone_trainer.prepare",
    is_done=_is_done,
    take_result=_take_result,
    phase=_phase,
    resources=_resources,
    mounts=_mounts,
    job_spec=removed_later,
    reads_originals=True,
)
