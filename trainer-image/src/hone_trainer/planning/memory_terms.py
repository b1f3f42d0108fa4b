"""The terms of the memory estimate: what one process holds at the peak of a training step, each with its formula.

W is the bytes of one weight (4 in float32, 2 in bfloat16), N the processes. Bytes per parameter:

    part         LoRA                    Full, DDP     Full, ZeRO-2     Full, ZeRO-3
    weights      W base + 4 adapter      4             W                W / N
    gradients    4 adapter               4             W / N            W / N
    optimizer    8 adapter               8             12 / N           12 / N      (fp32 copy and two moments)

Optimizers in 8 bits take 2 instead of 8; what is offloaded is a term of the host's memory instead (`host_bytes`).
LoRA under ZeRO divides the adapter's part by N as Full does, and has a copy of its weights more; ZeRO-3 divides the
base, too. Each function returns bytes, unless it says otherwise.
"""

from dataclasses import dataclass

from hone.contract.settings import Lora, Optimizer
from hone_trainer.models.facts import ModelFacts
from hone_trainer.models.saved import SavedActivations
from hone_trainer.models.zero import BUCKET_PARAMETERS, LIVE_PARAMETERS
from hone_trainer.protocol.units import GIB

FIXED_GPU = 2 * GIB
FIXED_CPU = 1 * GIB
MARGIN = 0.10
NF4_BYTES = 0.5 + (8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in NF4 with double quantization: 4 bits, a scale of 8 bits for each 64 weights, and one of 32 bits
for each 256 of these (arXiv 2305.14314, section 3: 0.127 bits per weight in addition to the 4)."""
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


@dataclass(frozen=True)
class TrainingStep:
    """What an estimate is of: a model, how it is trained, and how a step is laid out on the processes.

    Attributes:
        model: the base model.
        lora: the adapter that is trained; None: the model's own weights are.
        trainable: parameters that are trained.
        weight_bytes: bytes of one weight of the model: 4 in float32, 2 in bfloat16.
        on_gpu: whether activations are bfloat16 and CUDA's libraries are loaded.
        world_size: processes of the gang.
        zero_stage: 0 for plain DDP, 2 or 3.
        micro_batch_size: sequences per forward pass.
        accumulates: whether a step has several micro-batches.
        sums_in_float32: whether their gradients are summed in float32, though they are bfloat16.
        sequence_length: tokens of the longest row.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        limit_bytes: what a process may use, None if unknown; only passed on.
        quantized: whether the linear layers of the base are held in NF4, as by QLoRA.
        materializes_logits: whether the loss holds the logits of all tokens, rather than tiles of them.
        generated_at_once: answers that the model generates at once, whose keys and values it caches.
        reward_parameters: of a model that scores answers, in the weights' type.
        reference_parameters: of a copy of the model that the trained one is compared with, in the weights' type.
        saved: what autograd saves, as measured on this model; None: by formulas for a Llama.
        optim: the optimizer.
        offload_optimizer: whether ZeRO keeps gradients and optimizer state in host memory.
        offload_param: whether ZeRO-3 keeps weights there until they are used.
        teacher_parameters: of a model whose logits the trained one's are compared with: bfloat16 on GPUs, else float32.
    """

    model: ModelFacts
    lora: Lora | None
    trainable: int
    weight_bytes: int
    on_gpu: bool
    world_size: int
    zero_stage: int
    micro_batch_size: int
    accumulates: bool
    sequence_length: int
    gradient_checkpointing: bool
    limit_bytes: int | None
    quantized: bool = False
    materializes_logits: bool = False
    generated_at_once: int = 0
    reward_parameters: int = 0
    reference_parameters: int = 0
    teacher_parameters: int = 0
    saved: SavedActivations | None = None
    sums_in_float32: bool = False
    optim: Optimizer = Optimizer.ADAMW
    offload_optimizer: bool = False
    offload_param: bool = False

    @property
    def state_shards(self) -> int:
        """Parts that gradients and optimizer state are divided into: ZeRO-2 and ZeRO-3."""
        return self.world_size if self.zero_stage >= 2 else 1

    @property
    def weight_shards(self) -> int:
        """Parts that the weights are divided into: ZeRO-3."""
        return self.world_size if self.zero_stage >= 3 else 1

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.micro_batch_size * self.sequence_length

    @property
    def value_bytes(self) -> int:
        """Bytes of one activation."""
        return 2 if self.on_gpu else 4

    @property
    def autocast(self) -> bool:
        """Whether fp32 weights are computed with in bfloat16."""
        return self.on_gpu and not self.lora and not self.zero_stage


# Weights.


def model_weights(step: TrainingStep) -> int:
    """(base + adapter) / shards; without ZeRO, Full holds fp32 weights. Offloaded: none but those of
    `gathered_weights`."""
    if step.offload_param:
        return 0
    if step.lora:
        return (_base_weights(step) + 4 * step.trainable) // step.weight_shards
    per_parameter = step.weight_bytes if step.zero_stage else 4
    return step.model.parameters * per_parameter // step.weight_shards


def _base_weights(step: TrainingStep) -> int:
    """W per parameter. Quantized: NF4 for the matrices of linear layers, the largest of which is also held unpacked
    while it is multiplied with; embeddings, head and norms have W."""
    if not step.quantized:
        return step.model.parameters * step.weight_bytes
    sizes = step.model.quantized_sizes
    linear, largest = sum(sizes), max(sizes, default=0)
    return int(linear * NF4_BYTES) + (step.model.parameters - linear + largest) * step.weight_bytes


def gathered_weights(step: TrainingStep) -> int:
    """ZeRO-3 keeps up to `zero.LIVE_PARAMETERS` weights whole, and fetches a bucket of them ahead."""
    if step.zero_stage != 3:
        return 0
    live, fetched = (min(step.model.parameters, most) for most in (LIVE_PARAMETERS, BUCKET_PARAMETERS))
    return (live + fetched) * step.weight_bytes


def reward_model_weights(step: TrainingStep) -> int:
    """W per parameter of the reward model, whole in each process."""
    return step.reward_parameters * step.weight_bytes


def reference_model_weights(step: TrainingStep) -> int:
    """W per parameter of the reference model, divided as the model itself."""
    return step.reference_parameters // step.weight_shards * step.weight_bytes


def teacher_weights(step: TrainingStep) -> int:
    """2 per parameter of the teacher on a GPU, else 4, divided as the model itself."""
    return step.teacher_parameters * step.value_bytes // step.weight_shards


# Gradients.


def gradients(step: TrainingStep) -> int:
    """One per trained parameter: fp32 for an adapter and for DDP, whose buckets they are (`gradient_as_bucket_view`);
    W / N for Full under ZeRO, or 4 / N where they are summed in fp32. Offloaded: W for the largest tensor, twice."""
    if step.offload_optimizer:
        return 2 * step.weight_bytes * step.model.largest_tensor
    own_type = step.zero_stage and not step.lora and not step.sums_in_float32
    per_parameter = step.weight_bytes if own_type else 4
    return per_parameter * step.trainable // step.state_shards


def reduce_buckets(step: TrainingStep) -> int:
    """ZeRO has a bucket of `zero.BUCKET_PARAMETERS` next to the gradients, and a copy of it to reduce, sorted by the
    ranks that get the parts. GPUs fill another bucket meanwhile."""
    buckets = 3 if step.on_gpu else 2
    return buckets * min(step.trainable, BUCKET_PARAMETERS) * step.weight_bytes if step.zero_stage else 0


def accumulated_gradients(step: TrainingStep) -> int:
    """DDP with several micro-batches in a step: 4 per trained parameter more.

    The first micro-batch of a step finds no gradients, which were set to None, and allocates new ones outside of the
    buckets. Leaving them there would avoid that, but not after a resume, when the moments are loaded already.
    """
    return 4 * step.trainable if step.accumulates and step.world_size > 1 and not step.zero_stage else 0


# Optimizer.


def optimizer_states(step: TrainingStep) -> int:
    """AdamW's two fp32 moments, 8 per trained parameter; under ZeRO, 4 more for the fp32 copy of the weights. AdamW is
    fused, so it needs no room to work in. In 8 bits: 2, and two scales of 4 bytes for each 256; input embeddings keep
    8. Paged: none, since they leave when activations need the room."""
    if step.offload_optimizer or step.optim.paged:
        return 0
    if step.optim.in_8_bits:
        return moments_in_8_bits(step)
    return (12 if step.zero_stage else 8) * step.trainable // step.state_shards


def moments_in_8_bits(step: TrainingStep) -> int:
    """2 + 8 / 256 per trained parameter, 8 for those of the input embeddings, whose gradients are sparse."""
    embeddings = min(0 if step.lora else step.model.embedding_parameters, step.trainable)
    return int((2 + 8 / 256) * (step.trainable - embeddings)) + 8 * embeddings


# Host memory.


def host_bytes(step: TrainingStep) -> int:
    """Host memory of a process for what its GPU does not hold, as DeepSpeed 0.19.8 allocates it.

    Optimizer: fp32 weights, two moments and fp32 gradients (16 / N), and W / N, or 4 / N if summed in fp32, for the
    gradients as they arrive. ZeRO-2 has W / N for the new weights, and W / N more if a step has several micro-batches.
    Weights: W / N of all parameters. Paged moments: as many as there are.
    """
    if step.optim.paged:
        return moments_in_8_bits(step)
    total = 0
    if step.offload_optimizer:
        arriving = 4 if step.sums_in_float32 and step.zero_stage == 3 else step.weight_bytes
        if step.zero_stage == 2 and step.accumulates:
            arriving += step.weight_bytes
        total += (16 + arriving) * step.trainable // step.state_shards
    if step.offload_param:
        total += (step.model.parameters * step.weight_bytes + 4 * (step.trainable if step.lora else 0)) // (
            step.weight_shards
        )
    return total


# Activations.


def training_activations(step: TrainingStep) -> int:
    """What autograd saves, and the larger one of the backward pass of a layer and of the output head."""
    rows, length = step.micro_batch_size, step.sequence_length
    if measured := step.saved:
        saved = measured.at(rows, length, checkpointing=step.gradient_checkpointing)
        return int(saved + max(measured.backward.at(rows, length), _output_head(step)))
    saved = _saved_activations(step) + adapted_experts(step)
    return int(saved + max(_layer_backward(step), _output_head(step)))


def adapted_experts(step: TrainingStep) -> int:
    """W per value of the experts that adapters change, whatever the batch: PEFT adds an adapter to a copy of a layer's
    experts, which autograd saves for all layers, or with checkpointing for one, and whose gradient a layer needs."""
    layers = step.model.layers
    copies = (1 if step.gradient_checkpointing else layers) + 1
    return step.model.adapted_experts * copies * step.weight_bytes // layers


def _saved_activations(step: TrainingStep) -> float:
    """All layers; with checkpointing, h values for each layer (2 h by autocast: its residual stream is fp32), and one
    whole layer."""
    layers = step.model.layers
    values = layers * saved_values_of_layer(step)
    if step.gradient_checkpointing:
        values = layers * step.model.hidden_size * (2 if step.autocast else 1) + values / layers
    return step.tokens * values * step.value_bytes


def saved_values_of_layer(step: TrainingStep) -> float:
    """Values per token that autograd saves of one layer.

    Counted with saved_tensors_hooks on a Llama with SDPA attention (h hidden, i intermediate; n what the adapters take
    in and r what they hand on, for each token and layer):

                     fp32 (CPU)                            bf16 (GPU), values of 2 bytes
        Full         10 h + 4 i                            17 h + 4 i by autocast, 12 h + 4 i under ZeRO
        LoRA         6 h + 3 i + 2 n + r with dropout,     8 h + 3 i + 1.5 n + r with dropout,
                     8 h + 4 i + r without                 8 h + 3 i + n + r without
    """
    h, i = step.model.hidden_size, step.model.intermediate_size
    if step.lora is None:
        return (10 if not step.on_gpu else 17 if step.autocast else 12) * h + 4 * i
    taken, handed = (count / step.model.layers for count in step.model.lora_values(step.lora.rank))
    if step.on_gpu:
        return 8 * h + 3 * i + (1.5 if step.lora.dropout else 1.0) * taken + handed
    return (6 * h + 3 * i + 2 * taken if step.lora.dropout else 8 * h + 4 * i) + handed


def _layer_backward(step: TrainingStep) -> int:
    """8 h + 4 i values per token: the gradients of one layer's activations, attention and MLP."""
    return step.tokens * (8 * step.model.hidden_size + 4 * step.model.intermediate_size) * step.value_bytes


def _output_head(step: TrainingStep) -> int:
    """The loss's logits, the hidden states' gradient in fp32, and for Full the head's own gradient once more."""
    words = 0 if step.lora else step.model.vocab_size
    return _logits(step) + 4 * step.model.hidden_size * (step.tokens + words)


def _logits(step: TrainingStep) -> int:
    """TRL computes the loss in tiles of 4096 tokens × 32768 words, unless the objective's loss needs all logits."""
    tokens, words = min(step.tokens, _TILE_TOKENS), min(step.model.vocab_size, _TILE_WORDS)
    if step.materializes_logits:
        return step.tokens * step.model.vocab_size * _LOGIT_BYTES[step.value_bytes]
    if step.teacher_parameters:
        # A tile of either model in fp32, as wide as tiles are whatever the vocabulary; on CPUs copies to work on, too.
        return tokens * 4 * (2 * _TILE_WORDS + (0 if step.on_gpu else _CPU_TILES * words))
    return tokens * words * (step.value_bytes if step.on_gpu else 4 * _CPU_TILES)


def generation_cache(step: TrainingStep) -> int:
    """Keys and values of the answers that are generated at once, each as long as the longest row."""
    return step.generated_at_once * step.sequence_length * step.model.cached_values * step.value_bytes


# Overhead.


def heap_holes(step: TrainingStep, freed: int) -> int:
    """On CPUs, 0.35 of what steps free, and of the layers that QLoRA unpacks one by one.

    By about so much glibc's heap (as `gang.CPU_HEAP` sets it) is larger than the tensors in it, as measured on a Llama
    of 310 MB. If freed tensors were given back to the kernel at once, steps would take half as long again.

    Args:
        step: the step.
        freed: gradients with their buckets, activations, and the weights that ZeRO-3 keeps whole.
    """
    unpacked = sum(step.model.quantized_sizes) * step.weight_bytes if step.quantized else 0
    return 0 if step.on_gpu else int((freed + unpacked) * _CPU_HOLES)


def margin(total: int) -> int:
    """10 % of all other terms but the fixed one."""
    return int(total * MARGIN)


def libraries(step: TrainingStep) -> int:
    """A fixed amount for libraries and buffers: 2 GiB on a GPU, 1 GiB in a CPU process."""
    return FIXED_GPU if step.on_gpu else FIXED_CPU
