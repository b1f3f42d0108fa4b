"""Reward: a score for each answer, higher for the better one of two."""

from hone.contract.objectives.base import Data, Defaults, ObjectiveFacts, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to score answers: the better of two gets the higher score",
    have="two answers to each prompt, one of them better",
    want="a model that scores answers, to rank them or to reward another job",
    metric="pairAccuracy",
    data=Data(formats=(DataFormat.PREFERENCE,)),
    defaults=Defaults(
        learning_rate=rates(1e-4, 1e-5),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.03,
        epochs=1.0,
        largest_batch_size=256,
        lora_dropout=False,
    ),
    has_head=True,
    scores_answers=True,
    metrics=("pairAccuracy",),
)
