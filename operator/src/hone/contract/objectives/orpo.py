"""ORPO: answers are learned and at the same time preferred to worse ones, without a reference."""

from hone.contract.objectives.base import Data, Defaults, ObjectiveFacts, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to answer like the better of two answers, and unlike the worse one",
    have="two answers to each prompt, one of them better, and a base model that is not tuned to answer yet",
    want="SFT and preferences in one job",
    metric="preferenceAccuracy",
    data=Data(formats=(DataFormat.PREFERENCE,)),
    defaults=Defaults(
        learning_rate=rates(8e-5, 8e-6),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.1,
        largest_batch_size=128,
        beta=0.1,
        lora_dropout=False,
    ),
    scores_rows=True,
)
