"""Progress: what a prepare or trainer pod answers on `/progress`, as JSON. Of trainer pods, that of rank 0 answers 200,
the others 404."""

from hone.contract import VERSION
from hone.contract.base import Model
from hone.contract.search import SearchSummary

CHECKING_ROWS, TOKENIZING = "CheckingRows", "Tokenizing"
"""The stages of prepare that report rows."""
DOWNLOADING = "Downloading"
"""The stage of prepare that reports bytes."""


class Progress(Model):
    """The progress of a run. The operator copies it into `status.progress`."""

    version: int = VERSION
    pod_uid: str = ""
    """uid of the pod that answers, so that an address reused by another pod is noticed."""
    stage: str = "Starting"
    """Starting, Probing, Searching, Training, Evaluating, Saving or Done; of prepare Downloading,
    CheckingRows, Tokenizing or Starting."""
    step: int = 0
    """Optimizer steps done, those before a resume included."""
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    """Mean training loss since the last log line."""
    reward: float | None = None
    """GRPO, RLOO: mean reward since the last log line of the answers that the model generated."""
    eval_loss: float | None = None
    """Mean loss on the validation rows when they were last evaluated."""
    best_step: int | None = None
    """Step of the evaluation with the lowest loss on the validation rows so far."""
    best_eval_loss: float | None = None
    """That loss."""
    validation_warning: str | None = None
    """That the loss on the validation rows rises, and since which step, in a sentence; at most 256 characters."""
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    """Non-padding tokens per second over all ranks."""
    seconds_per_step: float | None = None
    """Recent mean, from which the completion time is estimated."""
    checkpoint_step: int | None = None
    """Step of the newest complete checkpoint."""
    resumed_from_step: int | None = None
    """Step that this attempt resumed from, if it did."""
    restarts: int = 0
    """How often the ranks were restarted within this attempt's pod."""
    changes: list[str] = []
    """What this attempt does differently from the plan, and why, in sentences; at most 8."""
    rows: int | None = None
    """Prepare: rows done in this stage."""
    total_rows: int | None = None
    """Prepare: rows of the stage; None: not known yet."""
    rows_per_second: float | None = None
    downloaded_bytes: int | None = None
    """Prepare: bytes of the model or data set that are on the workspace, those of an earlier attempt included."""
    total_bytes: int | None = None
    """Prepare: bytes of the model or data set; None: its origin does not say."""
    bytes_per_second: float | None = None
    search: SearchSummary | None = None
    """What the trials of a search have shown; None: there is none."""
    observed_time: float = 0.0
    """When this was measured, in seconds since the epoch."""
