"""KTO: answers rated good become more likely and those rated bad less likely, relative to the base model."""

from hone.contract.objectives.base import Data, Defaults, Labels, Needs, ObjectiveFacts, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to give answers like those rated good, unlike those rated bad",
    have="answers that were each rated good or bad, such as thumbs up and down",
    want="a model that answers like the good ones and unlike the bad ones, kept close to its base",
    metric="rewardAUC",
    data=Data(formats=(DataFormat.UNPAIRED_PREFERENCE,), labels=Labels.RATINGS, least_micro_batch=2),
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
    metrics=("rewardAUC",),
)
