"""Activations in host memory until the backward pass: a level of the memory fallback, for GPUs only."""

from typing import TYPE_CHECKING, Any

from hone_trainer.training.rank_trainer import RankTrainer

if TYPE_CHECKING:
    import torch


def offload_activations(trainer: RankTrainer) -> None:
    """Let every micro-batch of the trainer keep what it saves for the backward pass in host memory.

    TRL's own implementation, which some of its trainers also offer as an argument: parameters stay where they are, and
    the copies run in parallel with the computation.
    """
    from trl.models.activation_offloading import get_act_offloading_ctx_manager

    context = get_act_offloading_ctx_manager(model=trainer.model, warn_if_no_head=False)
    step = trainer.micro_batch_step

    def micro_batch_step(*args: Any, **kwargs: Any) -> "torch.Tensor":
        with context:
            return step(*args, **kwargs)

    trainer.micro_batch_step = micro_batch_step
