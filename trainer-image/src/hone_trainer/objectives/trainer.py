"""What Hone adds to every objective's trainer, whichever library it comes from."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hone_trainer.callbacks import StepHealth


class TrainerMixin:
    """Put before transformers' Trainer, or one of TRL's: each step's loss and gradient norm are told to `health`."""

    health: "StepHealth"
    """Set it before training starts."""

    def training_step(self, *args: object, **kwargs: object) -> "torch.Tensor":
        """One micro-batch forward and backward; its loss is already divided by the micro-batches of a step."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.health.add_loss(loss)
        return loss

    def _get_grad_norm(self, *args: object, **kwargs: object) -> "torch.Tensor | float | None":
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        self.health.add_norm(norm)
        return norm

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """finish writes the card, once, with the scores."""
