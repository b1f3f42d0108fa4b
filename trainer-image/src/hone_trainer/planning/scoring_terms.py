"""The terms of the estimate of scoring: what a process holds on each of its GPUs, or in memory on the CPU.

The model is scored as it is served, whatever its method: in bfloat16 on GPUs, where W is 2 bytes, else in float32.
Its layers are divided among the GPUs of the pod. Batches are made as small as needed, so only one row counts.
"""

from dataclasses import dataclass

from hone_trainer.models.facts import ModelFacts
from hone_trainer.planning.memory_terms import FIXED_CPU, FIXED_GPU, MARGIN

_TILE_TOKENS, _TILE_WORDS = 4096, 32_768
"""As in `memory_terms`: the losses are computed by the same tiles."""


@dataclass(frozen=True)
class Scoring:
    """What an estimate is of.

    Attributes:
        model: the base model, with the head that the objective trains.
        adapter: parameters of the adapter next to it.
        teacher: parameters of the model that it is compared with at the same time.
        on_gpu: whether it is scored on GPUs.
        length: tokens of the longest row.
        answer: most tokens that are generated after a row; 0: none are.
    """

    model: ModelFacts
    adapter: int
    teacher: int
    on_gpu: bool
    length: int
    answer: int

    @property
    def value_bytes(self) -> int:
        """W."""
        return 2 if self.on_gpu else 4


def weights(scoring: Scoring) -> int:
    """W for each parameter of all models that are held at once."""
    return (scoring.model.parameters + scoring.adapter + scoring.teacher) * scoring.value_bytes


def row(scoring: Scoring) -> int:
    """One row: 4 h + 3 i values per token of the layer that is at work, a mask of a byte for each pair of tokens, and
    keys and values of all layers for the row and its answer."""
    model = scoring.model
    values = scoring.length * (4 * model.hidden_size + 3 * model.intermediate_size)
    values += (scoring.length + scoring.answer) * model.cached_values if scoring.answer else 0
    return values * scoring.value_bytes + scoring.length**2


def tile(scoring: Scoring) -> int:
    """A tile of logits in float32, and its copy."""
    return 2 * 4 * min(scoring.length, _TILE_TOKENS) * min(scoring.model.vocab_size, _TILE_WORDS)


def per_device(scoring: Scoring, devices: int) -> int:
    """Bytes on each of so many GPUs, or in memory on the CPU: 10 % of all terms, and a fixed amount for libraries."""
    total = weights(scoring) // devices + row(scoring) + tile(scoring)
    return total + int(total * MARGIN) + (FIXED_GPU if scoring.on_gpu else FIXED_CPU)
