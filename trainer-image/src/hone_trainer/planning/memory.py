"""An estimate of the memory that one process needs at its peak, by part.

Bytes per parameter, W being the bytes of one weight (4 in float32, 2 in bfloat16), N the processes:

    part         LoRA                    Full, DDP     Full, ZeRO-2     Full, ZeRO-3
    weights      W base + 4 adapter      4             W                W / N
    gradients    4 adapter               4             W / N            W / N
    optimizer    8 adapter               8             12 / N           12 / N      (fp32 copy and two moments)

DDP's buckets are the gradients themselves (`gradient_as_bucket_view`); but where a step of several processes has
several micro-batches, the gradients of all but the last lie beside them: 4 more. ZeRO has a bucket of
`zero.BUCKET_PARAMETERS` beside the gradients and a copy of it to reduce, sorted by the ranks that get the parts; ZeRO-3
keeps up to `zero.LIVE_PARAMETERS` weights whole, and fetches a bucket of them ahead. LoRA under ZeRO divides the
adapter's part by N as Full does, and has a copy of its weights more; ZeRO-3 divides the base, too. The optimizer needs
no room to work in, since it is fused.

QLoRA is LoRA with NF4_BYTES instead of W for the matrices of linear layers, one of which at a time is whole while it is
multiplied with; embeddings, head and norms have W bytes.

Activations, in values per token and layer that autograd keeps, counted with saved_tensors_hooks on a Llama with SDPA
attention (h hidden, i intermediate; n what the adapters take in and r what they hand on, for each token and layer):

                 fp32 (CPU)                            bf16 (GPU), values of 2 bytes
    Full         10 h + 4 i                            17 h + 4 i by autocast, 12 h + 4 i under ZeRO
    LoRA         6 h + 3 i + 2 n + r with dropout,     8 h + 3 i + 1.5 n + r with dropout, 8 h + 3 i + n + r without
                 8 h + 4 i + r without

    without checkpointing   all layers
    with checkpointing      h for each layer (2 h by autocast: its residual stream is fp32), and one whole layer
    at work                 8 h + 4 i for the gradients of one layer, or, where that is more, the output head:
                            TRL computes the loss in tiles of 4096 tokens × 32768 words, and holds all logits for ORPO;
                            Full also has the head's gradient once more, in fp32

Holes, on CPUs: 0.35 of what steps free, which are gradients with their buckets, activations, the weights that
ZeRO-3 keeps whole, and the layers that QLoRA unpacks one by one. By about so much glibc's heap (as `gang.CPU_HEAP` sets
it) is larger than the tensors in it, as measured on a Llama of 310 MB. Were freed tensors given back to the kernel at
once, steps would take half as long again.

Overhead: the holes, 10 % of all that, and a fixed amount for libraries and buffers: 2 GiB on a GPU, 1 GiB in a CPU
process.

Not counted: while weights are loaded, the pages of their file are resident beside the copy. The kernel takes them back.
"""

from hone.contract.plan import MemoryEstimate
from hone.contract.settings import Lora, MethodType
from hone_trainer.models.facts import ModelFacts
from hone_trainer.models.zero import BUCKET_PARAMETERS, LIVE_PARAMETERS
from hone_trainer.protocol.units import GIB

FIXED_GPU = 2 * GIB
FIXED_CPU = 1 * GIB
MARGIN = 0.10
_CPU_HOLES = 0.35
_TILE_TOKENS = 4096
"""trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE."""
_TILE_WORDS = 32768
"""trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE."""
_LOGIT_BYTES = {4: 15, 2: 9}
"""Bytes per logit where a loss holds all of them, by those of a value: measured on TRL's ORPO, its copies for the two
parts of the loss and the gradients included; in bfloat16 the copies are float32."""
_CPU_TILES = 6
"""Copies of a tile in fp32 where it is not one Triton kernel that works on it."""


NF4_BYTES = 0.5 + (8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in NF4 with double quantization: 4 bits, a scale of 8 bits for each 64 weights, and one of 32 bits
for each 256 of these (arXiv 2305.14314, section 3: 0.127 bits per weight, beside the 4)."""


def estimate_memory(
    facts: ModelFacts,
    lora: Lora | None,
    *,
    trainable: int,
    weight_bytes: int,
    quantized: bool = False,
    on_gpu: bool,
    world_size: int,
    zero_stage: int,
    micro_batch_size: int,
    accumulates: bool,
    sequence_length: int,
    gradient_checkpointing: bool,
    limit_bytes: int | None,
    whole_logits: bool = False,
    written_at_once: int = 0,
    frozen_parameters: int = 0,
    teacher_parameters: int = 0,
) -> MemoryEstimate:
    """Bytes per process at the peak of a training step.

    Args:
        facts: the base model.
        lora: the adapter that is trained; None: the model's own weights are.
        trainable: parameters that are trained.
        weight_bytes: bytes of one weight of the model: 4 in float32, 2 in bfloat16.
        quantized: whether the linear layers of the base are held in NF4, as by QLoRA.
        on_gpu: whether activations are bfloat16 and CUDA's libraries are loaded.
        world_size: processes of the gang.
        zero_stage: 0 for plain DDP, 2 or 3.
        micro_batch_size: rows per forward pass.
        accumulates: whether a step has several micro-batches.
        sequence_length: tokens of the longest row.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        limit_bytes: what a process may use, None if unknown; only passed on.
        whole_logits: whether the loss holds the logits of all tokens, rather than tiles of them.
        written_at_once: answers that the model writes at once, whose keys and values it keeps.
        teacher_parameters: of a model whose logits the trained one's are compared with: bfloat16 on GPUs, else float32.
        frozen_parameters: a process's share of models beside it that are only asked, in the weights' type.
    """
    shards, weight_shards = (world_size if zero_stage >= stage else 1 for stage in (2, 3))
    whole = 0
    if zero_stage == 3:
        fetched = min(facts.parameters, BUCKET_PARAMETERS)
        whole = (min(facts.parameters, LIVE_PARAMETERS) + fetched) * weight_bytes
    buckets = 2 * min(trainable, BUCKET_PARAMETERS) * weight_bytes if zero_stage else 0
    if lora:
        weights = (_base_bytes(facts, weight_bytes, quantized=quantized) + 4 * trainable) // weight_shards
        gradients, optimizer = 4 * trainable // shards, (12 if zero_stage else 8) * trainable // shards
    elif zero_stage:
        weights = facts.parameters * weight_bytes // weight_shards
        gradients, optimizer = weight_bytes * trainable // shards, 12 * trainable // shards
    else:
        weights, gradients, optimizer = 4 * facts.parameters, 4 * trainable, 8 * trainable
    # The first micro-batch of a step finds no gradients, which were set to None, and makes new ones outside of the
    # buckets. Keeping them there would spare that, but not after a resume, when the moments are loaded already.
    apart = 4 * trainable if accumulates and world_size > 1 and not zero_stage else 0
    weights += frozen_parameters * weight_bytes
    weights += teacher_parameters * (2 if on_gpu else 4) // weight_shards
    weights, gradients = weights + whole, gradients + buckets + apart
    activations = _activations(
        facts,
        lora,
        tokens=micro_batch_size * sequence_length,
        on_gpu=on_gpu,
        autocast=on_gpu and not lora and not zero_stage,
        gradient_checkpointing=gradient_checkpointing,
        whole_logits=whole_logits,
        taught=teacher_parameters > 0,
    )
    # One after the other: answers are written before any of them is learned from.
    written = written_at_once * sequence_length * facts.cached_values * (2 if on_gpu else 4)
    activations = max(activations, written)
    parts = weights + gradients + optimizer + activations
    unpacked = sum(facts.linear_sizes) * weight_bytes if quantized else 0
    holes = 0 if on_gpu else int((whole + gradients + activations + unpacked) * _CPU_HOLES)
    overhead = holes + int((parts + holes) * MARGIN) + (FIXED_GPU if on_gpu else FIXED_CPU)
    return MemoryEstimate(
        weights_bytes=weights,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        activations_bytes=activations,
        overhead_bytes=overhead,
        total_bytes=parts + overhead,
        limit_bytes=limit_bytes,
    )


def _base_bytes(facts: ModelFacts, weight_bytes: int, *, quantized: bool) -> int:
    """Bytes of the base model's frozen weights; quantized, with the largest of them whole beside."""
    if not quantized:
        return facts.parameters * weight_bytes
    linear, largest = sum(facts.linear_sizes), max(facts.linear_sizes, default=0)
    return int(linear * NF4_BYTES) + (facts.parameters - linear + largest) * weight_bytes


def _activations(
    facts: ModelFacts,
    lora: Lora | None,
    *,
    tokens: int,
    on_gpu: bool,
    autocast: bool,
    gradient_checkpointing: bool,
    whole_logits: bool,
    taught: bool,
) -> int:
    """Bytes of what the forward pass keeps, and of the backward pass at work."""
    value = 2 if on_gpu else 4
    h, i, layers = facts.hidden_size, facts.intermediate_size, facts.layers
    kept = layers * _kept_by_layer(facts, lora, on_gpu=on_gpu, autocast=autocast)
    if gradient_checkpointing:
        kept = layers * h * (2 if autocast else 1) + kept / layers
    head = min(tokens, _TILE_TOKENS) * min(facts.vocab_size, _TILE_WORDS) * (value if on_gpu else 4 * _CPU_TILES)
    if whole_logits:
        head = tokens * facts.vocab_size * _LOGIT_BYTES[value]
    elif taught:
        # A tile of either model in fp32, as wide as tiles are whatever the vocabulary; on CPUs copies to work on, too.
        copies = 0 if on_gpu else _CPU_TILES * min(facts.vocab_size, _TILE_WORDS)
        head = min(tokens, _TILE_TOKENS) * 4 * (2 * _TILE_WORDS + copies)
    head += 4 * h * (tokens + (0 if lora else facts.vocab_size))
    return int(tokens * kept * value + max(tokens * (8 * h + 4 * i) * value, head))


def _kept_by_layer(facts: ModelFacts, lora: Lora | None, *, on_gpu: bool, autocast: bool) -> float:
    """Values that one layer keeps for each token."""
    h, i = facts.hidden_size, facts.intermediate_size
    if lora is None:
        return (10 if not on_gpu else 17 if autocast else 12) * h + 4 * i
    taken, handed = (count / facts.layers for count in facts.lora_values(lora))
    if on_gpu:
        return 8 * h + 3 * i + (1.5 if lora.dropout else 1.0) * taken + handed
    return (6 * h + 3 * i + 2 * taken if lora.dropout else 8 * h + 4 * i) + handed


def checkpoint_bytes(
    facts: ModelFacts, method: MethodType, *, trainable: int, weight_bytes: int, zero_stage: int
) -> int:
    """Size of one checkpoint: what is trained, its two moments, and under ZeRO also the fp32 copy of the weights.

    ZeRO-2 saves the weights twice: in DeepSpeed's own files, and whole, as finish exports them.
    """
    if method.adapts:
        return trainable * (4 + 8 + {0: 0, 2: 8, 3: 4}[zero_stage])
    states, copies = {0: (8, 4), 2: (12, 2 * weight_bytes), 3: (12, weight_bytes)}[zero_stage]
    return states * trainable + copies * facts.parameters


def states_bytes(estimate: MemoryEstimate) -> int:
    """What is needed whatever the batch: weights, gradients and optimizer state."""
    return estimate.weights_bytes + estimate.gradients_bytes + estimate.optimizer_bytes
