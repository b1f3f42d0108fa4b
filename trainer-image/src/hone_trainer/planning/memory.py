"""An estimate of the memory that one process needs at its peak, by part, and of the size of a checkpoint.

Each part is the sum of its terms (`memory_terms`). Not counted: while weights are loaded, the pages of their file are
resident in addition to the copy. The kernel takes them back.
"""

from collections.abc import Callable, Sequence

from hone.contract.methods import MethodType
from hone.contract.plan import MemoryEstimate
from hone_trainer.models.facts import ModelFacts
from hone_trainer.planning import memory_terms as terms
from hone_trainer.planning.memory_terms import TrainingStep

Term = Callable[[TrainingStep], int]

WEIGHTS: Sequence[Term] = (
    terms.model_weights,
    terms.gathered_weights,
    terms.reward_model_weights,
    terms.reference_model_weights,
    terms.teacher_weights,
)
GRADIENTS: Sequence[Term] = (terms.gradients, terms.reduce_buckets, terms.accumulated_gradients)
OPTIMIZER: Sequence[Term] = (terms.optimizer_states,)
ACTIVATIONS: Sequence[Term] = (terms.training_activations, terms.generation_cache)
"""One after the other: answers are generated before any of them is learned from, so the largest counts."""


def estimate_memory(step: TrainingStep) -> MemoryEstimate:
    """Bytes per process at the peak of a training step."""
    weights, gradients, optimizer = (sum(term(step) for term in part) for part in (WEIGHTS, GRADIENTS, OPTIMIZER))
    activations = max(term(step) for term in ACTIVATIONS)
    parts = weights + gradients + optimizer + activations
    holes = terms.heap_holes(step, terms.gathered_weights(step) + gradients + activations)
    overhead = holes + terms.margin(parts + holes) + terms.libraries(step)
    return MemoryEstimate(
        weights_bytes=weights,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        activations_bytes=activations,
        overhead_bytes=overhead,
        total_bytes=parts + overhead,
        limit_bytes=step.limit_bytes,
    )


def states_bytes(estimate: MemoryEstimate) -> int:
    """What is needed whatever the batch: weights, gradients and optimizer state."""
    return estimate.weights_bytes + estimate.gradients_bytes + estimate.optimizer_bytes


def checkpoint_bytes(
    facts: ModelFacts,
    method: MethodType,
    *,
    trainable: int,
    weight_bytes: int,
    zero_stage: int,
    in_8_bits: bool = False,
) -> int:
    """Size of one checkpoint: what is trained, its two moments, and under ZeRO also the fp32 copy of the weights.

    The last one also has the whole weights (`volume.exported_bytes`); without ZeRO all of them have.
    """
    if method.adapts:
        return trainable * (8 + {0: 4, 2: 8, 3: 4}[zero_stage])
    if zero_stage == 0:
        return (2 if in_8_bits else 8) * trainable + 4 * facts.parameters
    # ZeRO-2 saves all weights as they are used, ZeRO-3 only those of them that have no fp32 copy.
    copied = facts.parameters if zero_stage == 2 else facts.parameters - trainable
    return 12 * trainable + weight_bytes * copied
