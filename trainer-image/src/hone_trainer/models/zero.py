"""DeepSpeed: its configuration for a ZeRO stage, and what it may load from a checkpoint."""

import pickle
from typing import Any

from hone.contract.plan import Plan

BUCKET_PARAMETERS = 20_000_000
"""Gradients that are reduced, or weights that are fetched, at once. DeepSpeed's own 500 million gradients take a buffer
of a gigabyte, hardly faster."""
SUM_IN_FLOAT32_FROM = 8
"""Micro-batches of a step from which on their gradients are summed in float32: bfloat16 has 8 bits, and swallows what
is less than 1/256 of the sum."""
LIVE_PARAMETERS = 200_000_000
"""ZeRO-3: weights that a process keeps whole between two uses. DeepSpeed's own billion is all of a small model."""


def sums_in_float32(precision: str, zero_stage: int, accumulation: int) -> bool:
    """Whether gradients in bfloat16 are summed in float32 under ZeRO."""
    return precision == "bfloat16" and zero_stage > 0 and accumulation >= SUM_IN_FLOAT32_FROM


def deepspeed_config(plan: Plan) -> dict[str, Any] | None:
    """The configuration for the plan's ZeRO stage, or None for plain DDP (stage 0).

    It names no optimizer: the Trainer then makes torch's AdamW, so that DeepSpeed compiles none.
    """
    if plan.zero_stage == 0:
        return None
    stage: dict[str, Any] = {
        "stage": plan.zero_stage,
        # Ranks in 16 bits have GPUs, which reduce one bucket while the next one is filled.
        "overlap_comm": plan.precision == plan.half,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": BUCKET_PARAMETERS,
        "allgather_bucket_size": BUCKET_PARAMETERS,
    }
    if plan.zero_stage == 3:
        # The last checkpoint also holds the whole weights, as with the other stages: finish exports these.
        stage["stage3_gather_16bit_weights_on_model_save"] = True
        stage["stage3_prefetch_bucket_size"] = BUCKET_PARAMETERS
        stage["stage3_max_live_parameters"] = stage["stage3_max_reuse_distance"] = LIVE_PARAMETERS
    # Ranks in 16 bits have GPUs, which read and write pinned memory without a copy.
    host = {"device": "cpu", "pin_memory": plan.precision == plan.half}
    for name in ("offload_optimizer", "offload_param"):
        if getattr(plan, name):
            stage[name] = host
    wide = sums_in_float32(plan.precision, plan.zero_stage, plan.gradient_accumulation_steps)
    batch_size, batches = plan.batches_per_step
    return {
        **({"data_types": {"grad_accum_dtype": "fp32"}} if wide else {}),
        "zero_optimization": stage,
        "zero_allow_untested_optimizer": True,
        # torch's own fused AdamW runs on the CPU as well, and DeepSpeed's would be compiled when training starts.
        **({"zero_force_ds_cpu_optimizer": False} if plan.offload_optimizer else {}),
        "bf16": {"enabled": plan.precision == "bfloat16"},
        # A scale of 0: DeepSpeed finds one itself, as torch's GradScaler does, from 2^16.
        "fp16": {"enabled": plan.precision == "float16", "loss_scale": 0, "initial_scale_power": 16},
        "train_micro_batch_size_per_gpu": batch_size,
        "gradient_accumulation_steps": batches,
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


def load_checkpoints_as_data() -> None:
    """Let DeepSpeed load tensors, plain values and its own four classes from a checkpoint, and nothing else.

    By itself it unpickles whatever is there, and a pickle can run any code. All else of a checkpoint, the random states
    included, transformers loads in this way already.
    """
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    TorchCheckpointEngine.load = _load_as_data


def _load_as_data(engine: Any, path: str, map_location: Any = None) -> Any:
    import torch
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    # Early releases of Python 3.11 pickle the member of an Enum as getattr(class, name).
    member = (_stage, "builtins.getattr")
    with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address, member]):
        return torch.load(path, map_location=map_location, weights_only=True)


def _stage(owner: Any, name: str) -> Any:
    """What stands for getattr while a checkpoint is loaded: it finds members of `ZeroStageEnum` and nothing else."""
    from deepspeed.runtime.zero.config import ZeroStageEnum

    stages = {stage.name: stage for stage in ZeroStageEnum}
    if owner is not ZeroStageEnum or name not in stages:
        raise pickle.UnpicklingError(f"Weights only load failed: getattr of {name!r}")
    return stages[name]
