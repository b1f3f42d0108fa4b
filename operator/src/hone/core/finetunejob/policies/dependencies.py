"""What must exist before the pods of a step are created: claims and ConfigMaps that the spec names."""

from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources import sources
from hone.core.finetunejob.sources.source import Dependency
from hone.core.finetunejob.steps.step import Step
from hone.core.observed import Observed
from hone.core.ownership import claim_ref
from hone.core.pods import Trouble


def dependencies(run: Run, step: Step | None = None) -> list[Dependency]:
    """The objects that the spec names and the pods of a step mount; of all steps if `step` is None."""
    read = [each for each in sources(run) if step is None or step.reads_originals or not each.prepare_only]
    needs = [dependency for source in read for dependency in source.dependencies]
    if run.workspace.claim_name:
        needs.append(Dependency("spec.workspace.claimName", claim_ref(run.workspace.claim_name)))
    return needs


def missing(run: Run, observed: Observed, step: Step) -> Trouble | None:
    """The first object that a step lacks, with the field that names it and what to do; None if all exist."""
    troubles = (dependency.missing(observed, run.namespace) for dependency in dependencies(run, step))
    return next((trouble for trouble in troubles if trouble), None)
