"""The steps of a run, in their order: the only list of them."""

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.steps.finish import FINISH_STEP
from hone.core.finetunejob.steps.prepare import PREPARE_STEP
from hone.core.finetunejob.steps.publish import PUBLISH_STEP
from hone.core.finetunejob.steps.step import Step
from hone.core.finetunejob.steps.train import TRAIN_STEP

STEPS: dict[str, Step] = {step.name: step for step in (PREPARE_STEP, TRAIN_STEP, FINISH_STEP, PUBLISH_STEP)}
"""Every step by its name."""
FIRST = next(iter(STEPS.values()))
"""The step that reads the spec: before it has begun, an edited spec needs no special handling."""
SCORING = FINISH_STEP
"""The step that scores: it runs again if `spec.evaluation` is edited."""
PUBLISHING = PUBLISH_STEP
"""The step after the end: the model is complete before it, and it runs again if its fields of `spec.output` change."""


def next_step(run: Run, status: FineTuneJobStatus) -> Step | None:
    """The first step that is not done, or None at the end."""
    return next((step for step in STEPS.values() if not step.is_done(run, status)), None)
