"""The terms of the estimate of a vLLM server that generates answers: what it holds on each of its GPUs, or on the CPU.

It serves the base model in 16 bits on GPUs, where W is 2 bytes, else in float32, whatever the method trains on. Its
weights, keys and values are divided among its GPUs. What is left of its share of a GPU it fills with further keys and
values: more memory means more answers at once.
"""

from dataclasses import dataclass

from hone.contract.runconfig import GENERATION_GPU_SHARE
from hone_trainer.models.facts import ModelFacts
from hone_trainer.planning.memory_terms import FIXED_CPU, FIXED_GPU, MARGIN

LEAST_ANSWERS = 8
"""Answers at once, at least: with fewer, each token of an answer reads all weights for too few rows."""
_SEQUENCES = 256
"""Rows that are drawn at once at most (`--max-num-seqs`), for which vLLM measures itself at its start."""
_LOGIT_BYTES = 12
"""Bytes for each word of the vocabulary while a token is drawn: its logits in float32, and two copies."""
CPU_CACHE = 2**30
"""Bytes for keys and values on the CPU (`VLLM_CPU_KVCACHE_SPACE`)."""


_BLOCK_GPU, _BLOCK_CPU = 16, 128
"""Tokens whose keys and values are kept together: an answer takes whole blocks (vLLM's `--block-size`)."""


@dataclass(frozen=True)
class AnswerServerTerms:
    """What an estimate is of.

    Attributes:
        model: the base model.
        adapter: parameters of the adapter.
        gpus: of the server; 0: it runs on the CPU.
        length: most tokens of a prompt and its answer.
    """

    model: ModelFacts
    adapter: int
    gpus: int
    length: int

    @property
    def devices(self) -> int:
        """What weights, keys and values are divided among."""
        return max(1, self.gpus)

    @property
    def value_bytes(self) -> int:
        """W."""
        return 2 if self.gpus else 4


def weights(terms: AnswerServerTerms) -> int:
    """W for each parameter of the model, and of two adapters: that of a step, and the one before until it is gone."""
    return (terms.model.parameters + 2 * terms.adapter) * terms.value_bytes // terms.devices


def answer(terms: AnswerServerTerms) -> int:
    """Keys and values of all layers for the longest prompt and its answer."""
    block = _BLOCK_GPU if terms.gpus else _BLOCK_CPU
    return -(-terms.length // block) * block * terms.model.cached_values * terms.value_bytes // terms.devices


def logits(terms: AnswerServerTerms) -> int:
    """What drawing a token of each row takes."""
    return _SEQUENCES * terms.model.vocab_size * _LOGIT_BYTES


def fixed(terms: AnswerServerTerms) -> int:
    """Libraries, kernels and recorded graphs."""
    return FIXED_GPU if terms.gpus else 2 * FIXED_CPU


def per_device(terms: AnswerServerTerms) -> int:
    """Bytes on each GPU, or in memory on the CPU: 10 % of all terms but the cache, whose size is set, and libraries."""
    cache = LEAST_ANSWERS * answer(terms) if terms.gpus else CPU_CACHE
    total = weights(terms) + logits(terms)
    return total + int(total * MARGIN) + cache + fixed(terms)


def answers_at_once(terms: AnswerServerTerms, limit: int) -> int:
    """How many of the longest answers it can generate at once.

    Args:
        terms: the server.
        limit: bytes of a GPU, or of the server on the CPU.
    """
    if not terms.gpus:
        return CPU_CACHE // answer(terms)
    rest = int(limit * GENERATION_GPU_SHARE) - (per_device(terms) - LEAST_ANSWERS * answer(terms))
    return max(0, rest) // answer(terms)
