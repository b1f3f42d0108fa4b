"""SFT: next-token loss on the rows' own labels, by TRL's SFTTrainer."""

from typing import TYPE_CHECKING

from trl import SFTConfig, SFTTrainer

from hone_trainer.objectives.inputs import Inputs, training_arguments

if TYPE_CHECKING:
    import torch

    from hone_trainer.callbacks import StepHealth


class _Trainer(SFTTrainer):
    """TRL's trainer, which also tells each step's loss and gradient norm to `health`."""

    health: "StepHealth"

    def training_step(self, *args: object, **kwargs: object) -> "torch.Tensor":
        loss = super().training_step(*args, **kwargs)
        self.health.add(loss)
        return loss

    def _get_grad_norm(self, *args: object, **kwargs: object) -> "torch.Tensor | float | None":
        norm = super()._get_grad_norm(*args, **kwargs)
        self.health.add(norm)
        return norm

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """finish writes the card, once, with the scores."""


def build(inputs: Inputs) -> SFTTrainer:
    """The trainer for prepared rows, whose `labels` already say which tokens carry loss."""
    arguments = SFTConfig(
        **training_arguments(inputs.config, inputs.plan, inputs.output_dir),
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = _Trainer(
        model=inputs.model,
        args=arguments,
        train_dataset=inputs.prepared.train,
        processing_class=inputs.tokenizer,
        peft_config=inputs.peft_config,
        callbacks=inputs.callbacks,
    )
    trainer.health = inputs.health
    return trainer
