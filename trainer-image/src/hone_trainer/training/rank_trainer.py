"""What a rank needs of its trainer, whichever library its class comes from."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback, TrainingArguments


class RankTrainer(Protocol):
    """transformers' Trainer, or one of TRL's, with Hone's additions."""

    eval_losses: list[float] | None
    """The losses of an evaluation's batches on this rank, in order, if they are to be kept."""
    micro_batch_step: "Callable[..., torch.Tensor]"
    """One micro-batch forward and backward."""

    @property
    def args(self) -> "TrainingArguments":
        """Its arguments."""
        ...

    @property
    def model(self) -> "torch.nn.Module":
        """What is trained."""
        ...

    def train(self, resume_from_checkpoint: str | None = None) -> object:
        """Train to the end, from a checkpoint's directory where one is given."""
        ...

    def set_validation(self, rows: "Dataset") -> None:
        """Evaluate on these rows while training. Call it before training begins."""
        ...

    def set_exports(self, exports: Callable[[], bool]) -> None:
        """Ask this before a checkpoint is written: whether it may be exported. Call it before training begins."""
        ...

    def remove_callback(self, callback: "type[TrainerCallback]") -> object:
        """Drop the callback of this class."""
        ...
