"""The objectives in one table: what each learns from, goes with, and defaults to.

The CRD's rules, the trainer's checks and plan, the documentation and the tests all read it. The rates and warm-ups are
the design's ("Choices the plan makes"): TRL's own where it has one, else practitioners' experience.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hone.contract.settings import DataFormat, MethodType, Objective, Scheduler

ZERO_STAGES: Mapping[MethodType, tuple[int, ...]] = {
    MethodType.LORA: (0, 2, 3),
    MethodType.QLORA: (0, 2),
    MethodType.FULL: (0, 2, 3),
}
"""The ZeRO stages that each method runs under; 0 is plain DDP."""

NO_ZERO: Mapping[MethodType, str] = {
    MethodType.QLORA: "transformers loads all quantized weights in each process, where it would spread others "
    "(5.23, modeling_utils.py: `is_deepspeed_zero3_enabled() and not is_quantized`)",
}
"""Why a method does not go with the other ZeRO stages."""


@dataclass(frozen=True)
class ObjectiveFacts:
    """What is to know of an objective.

    Attributes:
        trains: what it trains for, in a few words.
        formats: the formats of rows that it learns from.
        learning_rate: the default peak learning rate by method; methods that are not in it do not go with it.
        scheduler: the default course of the rate.
        warmup_ratio: the default share of the steps over which the rate rises.
        metric: what its result is scored by; the first score's name.
        epochs: default passes over the rows; None: by their number.
        sequences: how many sequences of a row go through the model at once.
        marks_tokens: whether `dataset.trainOn` says which tokens carry loss.
        packs: whether several rows may be put into one.
        dropout: whether LoRA has dropout by default; not where two figures of a row are compared, which it would blur.
        balances: whether rows may weigh more where their class is scarce (`dataset.balance`).
        least_micro_batch: rows that a forward pass has at least.
        beta: the default of the loss's own weight, such as what holds DPO to its base; None where there is none.
        beta_may_be_zero: whether it may be left out by a 0; elsewhere nothing would be learned.
        generations: answers of its own to a prompt that it learns from by default; None: it learns from given ones.
        teacher: whether it learns from a second model, `spec.teacher`.
        whole_logits: whether the logits of whole rows are held for the loss, rather than tiles of them.
        global_batch_size: rows per step by default; answers where it writes them itself.
        has_head: whether a head for classes or a score takes the place of the one for tokens: it writes no answers.
    """

    trains: str
    formats: tuple[DataFormat, ...]
    learning_rate: Mapping[MethodType, float]
    scheduler: Scheduler
    warmup_ratio: float
    metric: str
    epochs: float | None = None
    sequences: int = 1
    marks_tokens: bool = False
    packs: bool = False
    dropout: bool = True
    balances: bool = False
    least_micro_batch: int = 1
    beta: float | None = None
    beta_may_be_zero: bool = False
    generations: int | None = None
    teacher: bool = False
    whole_logits: bool = False
    global_batch_size: int = 16
    has_head: bool = False

    @property
    def rewarded(self) -> bool:
        """Whether answers to the same prompt are compared by what they are rewarded."""
        return (self.generations or 0) > 1


def _rates(adapters: float, full: float) -> Mapping[MethodType, float]:
    return {MethodType.LORA: adapters, MethodType.QLORA: adapters, MethodType.FULL: full}


OBJECTIVES: Mapping[Objective, ObjectiveFacts] = {
    Objective.SFT: ObjectiveFacts(
        trains="to answer as the rows do",
        formats=(DataFormat.MESSAGES, DataFormat.PROMPT_COMPLETION, DataFormat.SHARE_GPT, DataFormat.ALPACA),
        learning_rate=_rates(2e-4, 2e-5),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.03,
        metric="exactMatch or loss",
        marks_tokens=True,
        packs=True,
    ),
    Objective.CLASSIFICATION: ObjectiveFacts(
        trains="to tell a text's class",
        formats=(DataFormat.TEXT_LABEL,),
        learning_rate=_rates(2e-4, 2e-5),
        scheduler=Scheduler.LINEAR,
        warmup_ratio=0.06,
        metric="macroF1",
        epochs=3.0,
        balances=True,
        has_head=True,
    ),
    Objective.REWARD: ObjectiveFacts(
        trains="to score answers as people do",
        formats=(DataFormat.PREFERENCE,),
        learning_rate=_rates(1e-4, 1e-5),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.03,
        metric="pairAccuracy",
        epochs=1.0,
        sequences=2,
        dropout=False,
        has_head=True,
    ),
    Objective.DPO: ObjectiveFacts(
        trains="to prefer the better of two answers",
        formats=(DataFormat.PREFERENCE,),
        learning_rate=_rates(1e-5, 1e-6),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.1,
        metric="preferenceAccuracy",
        epochs=1.0,
        sequences=2,
        dropout=False,
        beta=0.1,
    ),
    Objective.KTO: ObjectiveFacts(
        trains="to give answers that are rated good rather than those rated bad",
        formats=(DataFormat.UNPAIRED_PREFERENCE,),
        learning_rate=_rates(1e-5, 1e-6),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.1,
        metric="rewardAUC",
        epochs=1.0,
        dropout=False,
        balances=True,
        least_micro_batch=2,
        beta=0.1,
    ),
    Objective.ORPO: ObjectiveFacts(
        trains="to answer as the better of two answers, and unlike the worse one",
        formats=(DataFormat.PREFERENCE,),
        learning_rate=_rates(8e-5, 8e-6),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.1,
        metric="preferenceAccuracy",
        sequences=2,
        dropout=False,
        beta=0.1,
        whole_logits=True,
    ),
    Objective.GRPO: ObjectiveFacts(
        trains="to give answers that are rewarded more than its other ones",
        formats=(DataFormat.PROMPT,),
        learning_rate=_rates(1e-5, 1e-6),
        scheduler=Scheduler.CONSTANT,
        warmup_ratio=0.0,
        metric="reward",
        epochs=1.0,
        dropout=False,
        beta=0.0,
        beta_may_be_zero=True,
        generations=8,
        global_batch_size=64,
    ),
    Objective.RLOO: ObjectiveFacts(
        trains="to give answers that are rewarded more than its other ones",
        formats=(DataFormat.PROMPT,),
        learning_rate=_rates(1e-5, 1e-6),
        scheduler=Scheduler.CONSTANT,
        warmup_ratio=0.0,
        metric="reward",
        epochs=1.0,
        dropout=False,
        beta=0.05,
        beta_may_be_zero=True,
        generations=4,
        global_batch_size=64,
    ),
    Objective.DISTILLATION: ObjectiveFacts(
        trains="to answer as another model would",
        formats=(
            DataFormat.PROMPT,
            DataFormat.MESSAGES,
            DataFormat.PROMPT_COMPLETION,
            DataFormat.SHARE_GPT,
            DataFormat.ALPACA,
        ),
        learning_rate=_rates(1e-4, 1e-5),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.03,
        metric="klToTeacher",
        dropout=False,
        generations=1,
        teacher=True,
    ),
}


def objectives_of(format: DataFormat) -> list[Objective]:
    """The objectives that learn from rows of a format."""
    return [objective for objective, facts in OBJECTIVES.items() if format in facts.formats]
