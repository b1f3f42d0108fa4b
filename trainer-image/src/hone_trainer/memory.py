"""An estimate of the memory that one process needs at its peak, by part.

Bytes per parameter (DESIGN, "Choices the plan makes"), W being the bytes of one weight (4 in float32, 2 in bfloat16):

    part         LoRA                 Full, DDP     Full, ZeRO-2 over N processes
    weights      W base + 4 adapter   4             W
    gradients    4 adapter            4             W / N
    optimizer    8 adapter            8             12 / N   (fp32 copy and two moments)

    activations, of b rows with t tokens, h hidden, i intermediate, L layers, V vocabulary, A bytes of a value:
        without checkpointing   L · b · t · (17 · h + 4 · i) · A
        with checkpointing      L · b · t · h · A  +  b · t · (17 · h + 4 · i) · A      one layer at a time
        logits, in both         b · t · V · (A + 8)       as computed, in fp32 for the loss, and its gradient

    overhead     10 % of all that, and a fixed amount for libraries and buffers: 2 GiB on a GPU, 1 GiB in a CPU process

LoRA under ZeRO-2 divides the adapter's gradients and moments by N. ZeRO-3 is ZeRO-2 with the base's weights divided by
N, too; the layers that it gathers for a moment are left to the margin.
"""

from hone.contract.plan import MemoryEstimate
from hone.contract.settings import MethodType
from hone_trainer.models import ModelFacts

GIB = 1 << 30
_FIXED_GPU = 2 * GIB
_FIXED_CPU = 1 * GIB
_MARGIN = 0.10


def estimate_memory(
    facts: ModelFacts,
    method: MethodType,
    *,
    trainable: int,
    weight_bytes: int,
    on_gpu: bool,
    world_size: int,
    zero_stage: int,
    micro_batch_size: int,
    sequence_length: int,
    gradient_checkpointing: bool,
    limit_bytes: int | None,
) -> MemoryEstimate:
    """Bytes per process at the peak of a training step.

    Args:
        facts: the base model.
        method: which weights are trained.
        trainable: parameters that are trained.
        weight_bytes: bytes of one weight of the model: 4 in float32, 2 in bfloat16.
        on_gpu: whether activations are bfloat16 (autocast) and CUDA's libraries are loaded.
        world_size: processes of the gang.
        zero_stage: 0 for plain DDP, 2 or 3.
        micro_batch_size: rows per forward pass.
        sequence_length: tokens of the longest row.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        limit_bytes: what a process may use, None if unknown; only passed on.
    """
    shards = world_size if zero_stage >= 2 else 1
    base = facts.parameters * weight_bytes // (world_size if zero_stage >= 3 else 1)
    if method is MethodType.LORA:
        weights = base + 4 * trainable
        gradients, optimizer = 4 * trainable // shards, 8 * trainable // shards
    elif zero_stage >= 2:
        weights = base
        gradients, optimizer = weight_bytes * trainable // shards, 12 * trainable // shards
    else:
        weights, gradients, optimizer = 4 * facts.parameters, 4 * trainable, 8 * trainable
    value = 2 if on_gpu else 4
    tokens = micro_batch_size * sequence_length
    layer = tokens * (17 * facts.hidden_size + 4 * facts.intermediate_size) * value
    kept = facts.layers * tokens * facts.hidden_size * value + layer if gradient_checkpointing else facts.layers * layer
    activations = kept + tokens * facts.vocab_size * (value + 8)
    parts = weights + gradients + optimizer + activations
    overhead = int(parts * _MARGIN) + (_FIXED_GPU if on_gpu else _FIXED_CPU)
    return MemoryEstimate(
        weights_bytes=weights,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        activations_bytes=activations,
        overhead_bytes=overhead,
        total_bytes=parts + overhead,
        limit_bytes=limit_bytes,
    )


def checkpoint_bytes(
    facts: ModelFacts, method: MethodType, *, trainable: int, weight_bytes: int, zero_stage: int
) -> int:
    """Size of one checkpoint: what is trained, its two moments, and under ZeRO also the fp32 copy of the weights.

    ZeRO-2 saves the weights twice: in DeepSpeed's own files, and whole, as finish exports them.
    """
    if method is MethodType.LORA:
        return trainable * (4 + 8 + {0: 0, 2: 8, 3: 4}[zero_stage])
    states, copies = {0: (8, 4), 2: (12, 2 * weight_bytes), 3: (12, weight_bytes)}[zero_stage]
    return states * trainable + copies * facts.parameters


def states_bytes(estimate: MemoryEstimate) -> int:
    """What is needed whatever the batch: weights, gradients and optimizer state."""
    return estimate.weights_bytes + estimate.gradients_bytes + estimate.optimizer_bytes
