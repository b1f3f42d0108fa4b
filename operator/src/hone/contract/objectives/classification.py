"""Classification: cross-entropy over the classes of a text, or over each class where a text may have several."""

from hone.contract.objectives.base import Data, Defaults, Labels, ObjectiveFacts, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to classify texts",
    have="texts with their class or classes",
    want="a model that predicts the class or classes",
    metric="macroF1",
    data=Data(formats=(DataFormat.TEXT_LABEL,), labels=Labels.CLASSES),
    defaults=Defaults(
        learning_rate=rates(2e-4, 2e-5),
        scheduler=Scheduler.LINEAR,
        warmup_ratio=0.06,
        epochs=3.0,
        largest_batch_size=256,
    ),
    has_head=True,
    metrics=("macroF1", "accuracy", "calibrationError", "microF1", "subsetAccuracy"),
    scores_rows=True,
)
