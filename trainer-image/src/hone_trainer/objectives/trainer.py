"""What Hone adds to every objective's trainer, whichever library it comes from."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy
import torch
from accelerate import DistributedDataParallelKwargs

from hone.contract.settings import MethodType
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.training import checkpoint

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

    from hone_trainer.training.callbacks import StepHealth


class TrainerMixin:
    """Put before transformers' Trainer, or one of TRL's: tells each step's loss and gradient norm to `health`.

    It also lets DDP hold the gradients once.
    """

    args: "TrainingArguments"
    model: "PreTrainedModel"
    state: "TrainerState"
    eval_dataset: "Dataset"
    control: "TrainerControl"
    is_in_train: bool
    health: "StepHealth"
    """Set it before training starts."""

    def training_step(self, *args: object, **kwargs: object) -> torch.Tensor:
        """One micro-batch forward and backward; its loss is already divided by the micro-batches of a step."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.health.add_loss(loss)
        return loss

    def _get_grad_norm(self, *args: object, **kwargs: object) -> torch.Tensor | float | None:
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        self.health.add_norm(norm)
        return norm

    def set_validation(self, rows: "Dataset") -> None:
        """Evaluate on these rows while training; before training begins."""
        self.eval_dataset = rows

    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        """The loss on the validation rows. Training goes on as if it had not been asked for."""
        with _random_state_kept():
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    def prediction_step(self, *args: object, **kwargs: object) -> tuple[torch.Tensor | None, ...]:
        """One batch of an evaluation: loss, logits and labels; nothing where all ranks agreed to end it early.

        The rest is skipped rather than left: a data loader of accelerate that is left stays the current one.
        """
        if self.is_in_train and not self.control.should_evaluate:
            return None, None, None
        return super().prediction_step(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, *args: object, **kwargs: object) -> None:
        with checkpoint.saving(checkpoint.checkpoint_dir(Path(self.args.output_dir), self.state.global_step)):
            super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._build_accelerator_args(**kwargs)  # type: ignore[misc]
        for handler in arguments["kwargs_handlers"]:
            if isinstance(handler, DistributedDataParallelKwargs):
                # DDP's buckets are then the gradients, and not a second copy of them; no training argument says so.
                handler.gradient_as_bucket_view = True
        return arguments

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """finish writes the card, once, with the scores."""


Made = TypeVar("Made", bound=TrainerMixin)
"""The class of the trainer that is made."""


def made(
    trainer: "Callable[..., Made]",
    inputs: Inputs,
    model: "PreTrainedModel",
    arguments: "TrainingArguments",
    **more: Any,
) -> Made:
    """A trainer for the prepared rows, as every objective's `build` gives it back.

    Args:
        trainer: its class.
        inputs: what the objective builds it from; `tokenizer` with what the objective has set in it.
        model: what is trained.
        arguments: of its training.
        more: arguments that only this class takes.
    """
    trainer_made = trainer(
        model=model,
        args=arguments,
        train_dataset=inputs.prepared.train,
        processing_class=inputs.tokenizer,
        callbacks=inputs.callbacks,
        **more,
    )
    trainer_made.health = inputs.health
    if inputs.config.method.type is MethodType.QLORA:
        for parameter in trainer_made.model.parameters():
            if parameter.requires_grad:
                # TRL turns what is trained on a quantized base to bf16, which would swallow small updates.
                parameter.data = parameter.data.float()
    return trainer_made


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Leave every source of randomness as it was: a data loader draws from it, though it does not shuffle."""
    python, of_numpy = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield
    random.setstate(python)
    numpy.random.set_state(of_numpy)
