"""Activations that wait in host memory for the backward pass: the ladder's rung between time and memory, GPUs only."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer


def offload_activations(trainer: "Trainer") -> None:
    """Let every training step of the trainer keep what it saves for the backward pass in host memory.

    TRL's own implementation, which some of its trainers also offer as an argument: parameters stay where they are, and
    the copies run beside the computation.
    """
    from trl.models.activation_offloading import get_act_offloading_ctx_manager

    context = get_act_offloading_ctx_manager(model=trainer.model, warn_if_no_head=False)
    step = trainer.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        with context:
            return step(*args, **kwargs)

    trainer.training_step = training_step
