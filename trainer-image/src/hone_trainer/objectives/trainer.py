"""What Hone adds to every objective's trainer, whichever library it comes from."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy
import torch
from accelerate import DistributedDataParallelKwargs

from hone.contract.plan import Plan
from hone_trainer.methods import METHODS
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.protocol.beats import Beats
from hone_trainer.training import checkpoint
from hone_trainer.training.length_groups import group_by_length
from hone_trainer.training.step_shares import MICRO_BATCHES, ShareDataset, by_share, weighted

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel, Trainer, TrainingArguments

    from hone_trainer.training.callbacks import StepHealth
    from hone_trainer.training.rank_trainer import RankTrainer
else:
    # At run time the class that it is put before brings the methods: transformers' own, or one of TRL's.
    Trainer = object


class TrainerMixin(Trainer):
    """Put before transformers' Trainer, or one of TRL's: reports each step's loss and gradient norm to `health`.

    It also counts what is done, and lets DDP hold the gradients once.
    """

    health: "StepHealth"
    beats: Beats
    plan: Plan
    """Set before training starts."""
    exports: Callable[[], bool] | None = None
    """Whether the checkpoint that is being written may be exported. None: only that of the last step."""
    eval_losses: list[float] | None = None
    """The losses of an evaluation's batches on this rank, in order, if they are to be kept. Empty it before each."""
    lengths: Sequence[int] | None = None
    """Tokens of each training row, where those of a step are sorted by them."""

    def training_step(self, model: torch.nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One batch forward and backward: a micro-batch, or all of a step's. Its loss counts by its part of a step."""
        if MICRO_BATCHES not in inputs:
            return self.micro_batch_step(model, inputs, *args, **kwargs)
        losses, parts = [], weighted(inputs)
        for number, (micro_batch, weight) in enumerate(parts, start=1):
            is_last = number == len(parts)
            # DeepSpeed sums gradients until it is told that they are complete; DDP waits with exchanging them.
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            waits = not (is_last or self.is_deepspeed_enabled)
            # What transformers divides the loss by, unless that is a sum over a step's tokens already.
            self.current_gradient_accumulation_steps = 1 / weight  # type: ignore[assignment]
            with self.accelerator.no_sync(model) if waits else nullcontext():
                losses.append(self.micro_batch_step(model, micro_batch, *args, **kwargs))
        return torch.stack(losses).sum()

    def micro_batch_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch forward and backward; arguments as of `training_step`."""
        loss = super().training_step(*args, **kwargs)
        self.health.add_loss(loss)
        self.beats("micro-batch")
        return loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The batches of a step, and the tokens or rows that their loss is divided by, over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches and MICRO_BATCHES in batches[0]:
            (share,) = batches
            parts = share[MICRO_BATCHES]
            _, items = super().get_batch_samples(iter(parts), len(parts), device)
        return batches, items

    def _track_num_input_tokens(self, inputs: Any) -> None:
        # Of objectives that generate, a batch is a list.
        parts = inputs[MICRO_BATCHES] if MICRO_BATCHES in inputs else [inputs]  # noqa: SIM401
        for micro_batch in parts:
            super()._track_num_input_tokens(micro_batch)  # type: ignore[no-untyped-call]

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> torch.Tensor | float | None:
        # transformers does not annotate it.
        norm: torch.Tensor | float | None = super()._get_grad_norm(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.health.add_norm(norm)
        return norm

    def get_train_dataloader(self) -> "DataLoader[Any]":
        """The training rows, those of each step by length where that is planned."""
        if self.lengths is None:
            return super().get_train_dataloader()
        plan, world_size = self.plan, self.args.world_size
        rows_per_step = plan.micro_batch_size * plan.gradient_accumulation_steps * world_size
        if plan.micro_batch_tokens is None:
            loader: DataLoader[Any] = super().get_train_dataloader()
            group_by_length(loader, self.lengths, rows_per_step)
            return loader
        rows = self.train_dataset
        self.train_dataset = ShareDataset(rows)
        try:
            loader = super().get_train_dataloader()
        finally:
            self.train_dataset = rows
        by_share(loader, self.lengths, rows_per_step, plan.micro_batch_tokens, world_size)
        return loader

    def set_exports(self, exports: Callable[[], bool]) -> None:
        """Ask this before a checkpoint is written: whether it may be exported; before training begins."""
        self.exports = exports

    def set_validation(self, rows: "Dataset") -> None:
        """Evaluate on these rows while training; before training begins."""
        self.eval_dataset = rows

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The loss on the validation rows. Computing it does not change the training that follows."""
        with random_state_restored():
            return super().evaluate(*args, **kwargs)

    def prediction_step(
        self, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """One batch of an evaluation: loss, logits and labels; nothing where all ranks agreed to end it early.

        The rest is skipped rather than left: a data loader of accelerate that is left stays the current one.
        """
        if self.is_in_train and not self.control.should_evaluate:
            return None, None, None
        result = super().prediction_step(*args, **kwargs)
        if self.eval_losses is not None and result[0] is not None:
            self.eval_losses.append(float(result[0]))
        self.beats("evaluation")
        return result

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole weights, unless DeepSpeed's own files are all that a checkpoint of this step needs.

        Only finish reads the whole weights, and only those of a checkpoint that may be exported. Under ZeRO-3 rank 0
        would gather them from all ranks each time.
        """
        needed = self.exports() if self.exports else self.state.global_step >= self.state.max_steps
        if self.is_deepspeed_enabled and not needed:
            return
        super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with checkpoint.saving(checkpoint.checkpoint_dir(Path(str(self.args.output_dir)), self.state.global_step)):
            super()._save_checkpoint(*args, **kwargs)

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._build_accelerator_args(**kwargs)
        for handler in arguments["kwargs_handlers"]:
            if isinstance(handler, DistributedDataParallelKwargs):
                # DDP's buckets are then the gradients, and not a second copy of them; no training argument says so.
                handler.gradient_as_bucket_view = True
        return arguments

    def create_accelerator_and_postprocess(self) -> None:
        """Without DDP around the model of an only process: it has nobody to reduce gradients with, holds them a second
        time, and fails where a step does not use every weight."""
        super().create_accelerator_and_postprocess()
        if self.args.world_size == 1 and not self.is_deepspeed_enabled:
            unwrapped = partial(self.accelerator.prepare_model, evaluation_mode=True)
            self.accelerator.prepare_model = unwrapped

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """finish writes the card, once, with the scores."""


def build_trainer(
    trainer: "type[TrainerMixin]",
    inputs: Inputs,
    model: "PreTrainedModel",
    arguments: "TrainingArguments",
    **more: Any,
) -> "RankTrainer":
    """A trainer for the prepared rows, as every objective's `build` returns it.

    Args:
        trainer: its class.
        inputs: what the objective builds it from; `tokenizer` with what the objective has set in it.
        model: what is trained.
        arguments: of its training.
        more: arguments that only this class takes.
    """
    built = trainer(
        model=model,
        args=arguments,
        train_dataset=inputs.prepared.train,
        processing_class=inputs.tokenizer,
        callbacks=inputs.callbacks,
        **more,
    )
    built.health, built.beats, built.plan = inputs.health, inputs.beats, inputs.plan
    built.lengths = inputs.prepared.train["length"][:] if inputs.plan.length_grouping else None
    # It has a model from here on, which transformers' class leaves open.
    ready = cast("RankTrainer", built)
    METHODS[inputs.config.method.type].after_build(ready.model)
    return ready


@contextmanager
def random_state_restored() -> Iterator[None]:
    """Leave every source of randomness as it was: a data loader draws from it, though it does not shuffle."""
    python, of_numpy = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield
    random.setstate(python)
    numpy.random.set_state(of_numpy)
