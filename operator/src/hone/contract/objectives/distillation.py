"""Distillation: each token of the model's own answers moves toward what a teacher would generate there."""

from hone.contract.objectives.base import Data, Defaults, Needs, ObjectiveFacts, Rollout, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to answer like another model",
    have="prompts, and a better or larger model with the same vocabulary, the teacher",
    want="a model that answers like the teacher",
    metric="klToTeacher",
    data=Data(
        formats=(
            DataFormat.PROMPT,
            DataFormat.MESSAGES,
            DataFormat.PROMPT_COMPLETION,
            DataFormat.SHARE_GPT,
            DataFormat.ALPACA,
        )
    ),
    defaults=Defaults(
        learning_rate=rates(1e-4, 1e-5),
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.03,
        lora_dropout=False,
    ),
    rollout=Rollout(generations=1),
    needs=Needs(teacher=True),
    metrics=("klToTeacher",),
)
