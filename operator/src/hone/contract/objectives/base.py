"""The record of an objective: its data, its defaults, what it generates and what it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from hone.contract.methods import MethodType
from hone.contract.settings import DataFormat, Scheduler

TEXTS = frozenset({DataFormat.TEXT, DataFormat.TEXT_LABEL})
"""Formats whose rows are texts without turns."""


class Labels(Enum):
    """What the labels of rows are."""

    CLASSES = auto()
    RATINGS = auto()
    """Good or bad."""


@dataclass(frozen=True)
class Data:
    """The rows that an objective learns from.

    Attributes:
        formats: their formats; the first one is what the matrix tries.
        marks_tokens: whether `dataset.trainOn` selects the tokens on which the loss is computed.
        packs: whether several rows may be packed into one.
        labels: what the labels of the rows are; None: the rows have none.
        least_micro_batch: minimum number of rows in a forward pass.
    """

    formats: tuple[DataFormat, ...]
    marks_tokens: bool = False
    packs: bool = False
    labels: Labels | None = None
    least_micro_batch: int = 1

    @property
    def has_conversations(self) -> bool:
        """Whether rows may be conversations, which a chat template shows."""
        return any(format not in TEXTS for format in self.formats)

    @property
    def balances(self) -> bool:
        """Whether rows with rare labels may have more weight (`dataset.balance`)."""
        return self.labels is not None


@dataclass(frozen=True)
class Defaults:
    """Default values of hyperparameters.

    Attributes:
        learning_rate: the peak learning rate by method; a method that is missing here is rejected.
        scheduler: the learning rate schedule.
        warmup_ratio: fraction of the steps over which the learning rate rises.
        epochs: passes over the rows; None: depends on the number of rows.
        global_batch_size: rows per step; answers where the model generates them.
        largest_batch_size: most rows, or answers, per step that the default grows to where GPUs are not filled by
            fewer; None: as many as fill them. Losses on single tokens have as many terms in fewer rows; those that
            compare whole rows are seldom trained with more.
        beta: a weight in the loss, such as that of DPO's reference model; None if the loss has none.
        beta_may_be_zero: whether 0 is allowed; with other objectives the model would learn nothing.
        lora_dropout: whether LoRA has dropout on small data. It adds noise to losses that compare two values of a row.
    """

    learning_rate: Mapping[MethodType, float]
    scheduler: Scheduler
    warmup_ratio: float
    epochs: float | None = None
    global_batch_size: int = 16
    largest_batch_size: int | None = None
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
    """What the loss needs in addition to rows and model.

    Attributes:
        teacher: a second model to learn from, `spec.teacher`.
        reward: a measure of answers, `spec.reward`.
        reference: the model as it was before training; `beta` limits how far the model moves away from it.
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
        want: what such a user wants.
        metric: the metric of its result: the name of the first score.
        data: the rows that it learns from.
        defaults: its default hyperparameters.
        rollout: the answers that the model generates in training; None: it learns from the answers in the rows.
        needs: what the loss needs in addition.
        has_head: whether a head for classes or a score replaces the one for tokens: the result does not generate text.
        scores_answers: whether the result scores answers, so that other jobs may name it as their reward model.
        metrics: the names of all its scores; (): they depend on data or spec.
        compares_answers: whether its answers are compared with those of the test rows (`evaluation.metrics`).
        scores_rows: whether its main score is a mean of one figure for each row, so that groups of rows have it too.
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
    scores_answers: bool = False
    metrics: tuple[str, ...] = ()
    compares_answers: bool = False
    scores_rows: bool = False

    @property
    def generates(self) -> bool:
        """Whether the model generates the answers that it learns from."""
        return self.rollout is not None


def rates(adapters: float, full: float) -> Mapping[MethodType, float]:
    """Peak learning rates: one for methods that train an adapter, one for those that train the base model's weights."""
    return {method: adapters if method.adapts else full for method in MethodType}
