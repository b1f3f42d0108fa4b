"""What must exist before a step's pods are created: claims and ConfigMaps; and which claims are refused."""

from hone.core.allowlists import NOT_ALLOWED
from hone.core.finetunejob.policies import budget, upstream
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources import downloads, sources
from hone.core.finetunejob.sources.source import RESERVED, Dependency
from hone.core.finetunejob.steps import PUBLISHING
from hone.core.finetunejob.steps.step import Step
from hone.core.observed import Observed
from hone.core.ownership import claim_ref
from hone.core.pods import Trouble

STALLED_REASONS = (*upstream.STALLED, *budget.REASONS, RESERVED, NOT_ALLOWED)
"""Reasons that do not resolve by waiting: the user has to change this job's spec, or another job."""

LOST = "the tuned model was on it: delete this job and apply it again, or remove the field"
"""What to do if there is nothing to publish any more."""


def dependencies(run: Run, step: Step) -> list[Dependency]:
    """The objects that the spec names and the pods of a step mount; of publish, the model."""
    if step is PUBLISHING:
        return [Dependency("spec.output.uri", claim_ref(run.output_claim), remedy=LOST)]
    read = [each for each in sources(run) if step.reads_originals or not each.prepare_only]
    needs = [dependency for source in read for dependency in source.dependencies]
    if run.workspace.claim_name:
        claim = claim_ref(run.workspace.claim_name)
        needs.append(Dependency("spec.workspace.claimName", claim, is_written=True))
    if run.cache_claim and downloads(run):
        field = "spec.cache.claimName" if run.spec.cache else "status.cacheClaim"
        needs.append(Dependency(field, claim_ref(run.cache_claim), is_written=True))
    return needs


def missing(run: Run, observed: Observed, step: Step) -> Trouble | None:
    """The first object that a step lacks or must not use, with its field and what to do; None if there is none."""
    troubles = (dependency.missing(observed, run.namespace) for dependency in dependencies(run, step))
    return next((trouble for trouble in troubles if trouble), None)
