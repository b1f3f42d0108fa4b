"""The figures of training on the validation rows, as status shows them."""

from typing import Any

from hone.contract.progress import Progress
from hone.contract.results import StepResult
from hone.core import reported

MAX_WARNING = 256


def loss_text(loss: float | None) -> str | None:
    """A loss with four significant digits, for the column."""
    return None if loss is None else f"{loss:.4g}"


def best_evaluation(source: Progress | StepResult) -> dict[str, Any]:
    """The fields of `ProgressStatus` on the best evaluation, from a pod's answer or its result."""
    warning = source.validation_warning
    return {
        "best_eval_loss": loss_text(source.best_eval_loss),
        "best_step": source.best_step,
        "warning": reported.text(warning, MAX_WARNING) if warning else None,
    }
