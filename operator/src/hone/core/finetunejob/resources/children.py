"""The objects that each step needs alongside its Job, and their names."""

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.core.children import ref_of
from hone.core.finetunejob.resources import claims
from hone.core.finetunejob.resources.runconfig import config_map, config_map_name
from hone.core.finetunejob.resources.service import service
from hone.core.finetunejob.run import Run, Step
from hone.core.observed import Object, Ref


def needed(run: Run, step: Step, config: str) -> list[Object]:
    """The objects that the step's Job needs."""
    found = [config_map(run, config)]
    if run.workspace.claim_name is None:
        found.append(claims.workspace_claim(run))
    if step == Step.TRAIN and run.compute.nodes > 1:
        found.append(service(run))
    if step == Step.FINISH:
        found.append(claims.output_claim(run))
    return found


def child_refs(run: Run, status: FineTuneJobStatus) -> set[Ref]:
    """Every name that the next attempt may use, whichever step it belongs to."""
    found = {run.job_ref(step, _next(status, step)) for step in Step}
    for config in {status.run_config or config_map_name(run), config_map_name(run)}:
        found |= {ref_of(child) for step in Step for child in needed(run, step, config)}
    return found


def _next(status: FineTuneJobStatus, step: Step) -> int:
    return max((attempt.number for attempt in status.attempts if attempt.step == step), default=0) + 1
