"""The record of an objective: what it learns from, starts with, generates and needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from hone.contract.methods import MethodType
from hone.contract.settings import DataFormat, Scheduler


@dataclass(frozen=True)
class Data:
    """The rows that an objective learns from.

    Attributes:
        formats: their formats; the first one is what the matrix tries.
        marks_tokens: whether `dataset.trainOn` says which tokens carry loss.
        packs: whether several rows may be packed into one.
        balances: whether rows may weigh more where their class is scarce (`dataset.balance`).
        least_micro_batch: rows that a forward pass has at least.
    """

    formats: tuple[DataFormat, ...]
    marks_tokens: bool = False
    packs: bool = False
    balances: bool = False
    least_micro_batch: int = 1


@dataclass(frozen=True)
class Defaults:
    """What training starts with where the spec sets nothing.

    Attributes:
        learning_rate: the peak learning rate by method; a method that is missing here is refused.
        scheduler: the course of the rate.
        warmup_ratio: share of the steps over which the rate rises.
        epochs: passes over the rows; None: by their number.
        global_batch_size: rows per step; answers where the model generates them.
        beta: the loss's own weight, such as what holds DPO to its base; None where the loss has none.
        beta_may_be_zero: whether the spec may set 0; with other objectives nothing would be learned.
        lora_dropout: whether LoRA has dropout on small data. It blurs two figures of a row that are compared.
    """

    learning_rate: Mapping[MethodType, float]
    scheduler: Scheduler
    warmup_ratio: float
    epochs: float | None = None
    global_batch_size: int = 16
    beta: float | None = None
    beta_may_be_zero: bool = False
    lora_dropout: bool = True


@dataclass(frozen=True)
class Rollout:
    """On-policy generation: the model learns from answers that it generates itself.

    Attributes:
        generations: answers to each prompt by default.
    """

    generations: int

    @property
    def compares(self) -> bool:
        """Whether the answers to a prompt are compared with one another."""
        return self.generations > 1


@dataclass(frozen=True)
class Needs:
    """What the loss needs besides rows and model.

    Attributes:
        teacher: a second model to learn from, `spec.teacher`.
        reward: a measure of answers, `spec.reward`.
        reference: the model as it was before training, which `beta` holds it to.
    """

    teacher: bool = False
    reward: bool = False
    reference: bool = False


@dataclass(frozen=True)
class ObjectiveFacts:
    """One objective.

    Attributes:
        trains: what it trains for, in a few words.
        have: what a user has who should choose it.
        want: what such a user gets.
        metric: what its result is scored by; the first score's name.
        data: the rows that it learns from.
        defaults: what training starts with.
        rollout: the answers that the model generates in training; None: it learns from the rows' own.
        needs: what the loss needs in addition.
        has_head: whether a head for classes or a score replaces the one for tokens: the result writes no answers.
    """

    trains: str
    have: str
    want: str
    metric: str
    data: Data
    defaults: Defaults
    rollout: Rollout | None = None
    needs: Needs = Needs()
    has_head: bool = False


def rates(adapters: float, full: float) -> Mapping[MethodType, float]:
    """Peak learning rates: one for every method that trains an adapter, one for those that train the base's weights."""
    return {method: adapters if method.adapts else full for method in MethodType}
