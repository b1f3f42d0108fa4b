"""DPO: the better of two answers becomes more likely than the worse one, relative to the base model."""

from hone.contract.objectives.base import Data, Defaults, Needs, ObjectiveFacts, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to prefer the better of two answers",
    have="two answers to each prompt, one of them better, and a base model that is already tuned to answer",
    want="a model that answers like the better ones, kept close to its base",
    metric="preferenceAccuracy",
    data=Data(formats=(DataFormat.PREFERENCE,)),
    defaults=Defaults(
        learning_rate=rates(1e-5, 1e-6),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.1,
        epochs=1.0,
        largest_batch_size=128,
        beta=0.1,
        lora_dropout=False,
    ),
    needs=Needs(reference=True),
    metrics=("preferenceAccuracy", "rewardAccuracy"),
    scores_rows=True,
)
