"""DPO: the better of two answers becomes likelier than the worse one, measured against the base."""

from hone.contract.objectives.base import Data, Defaults, Needs, ObjectiveFacts, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to prefer the better of two answers",
    have="two answers to each prompt, one of them better, and a base that answers already",
    want="a model that answers as the better ones do",
    metric="preferenceAccuracy",
    data=Data(formats=(DataFormat.PREFERENCE,)),
    defaults=Defaults(
        learning_rate=rates(1e-5, 1e-6),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.1,
        epochs=1.0,
        beta=0.1,
        lora_dropout=False,
    ),
    needs=Needs(reference=True),
)
