"""DeepSpeed's configuration for a ZeRO stage."""

from typing import Any

from hone.contract.plan import Plan


def deepspeed_config(plan: Plan) -> dict[str, Any] | None:
    """The configuration for the plan's ZeRO stage, or None for plain DDP (stage 0).

    It names no optimizer: the Trainer then makes torch's AdamW, so that DeepSpeed compiles none.
    """
    if plan.zero_stage == 0:
        return None
    stage: dict[str, Any] = {
        "stage": plan.zero_stage,
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_scatter": True,
    }
    if plan.zero_stage == 3:
        # The checkpoint also holds the whole weights, as with the other stages: finish exports these.
        stage["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": stage,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": plan.precision == "bfloat16"},
        "fp16": {"enabled": False},
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "gradient_clipping": plan.max_grad_norm,
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }


def use_gloo_alone() -> None:
    """On CPUs, keep DeepSpeed from compiling its shared-memory all-reduce when it starts.

    That takes minutes and a C++ compiler in the pod, and speeds up none but ranks of the same pod.
    """
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = False
