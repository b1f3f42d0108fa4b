"""GRPO: answers with more reward than others to the same prompt become more likely; scaled by mean and deviation."""

from hone.contract.objectives.base import Data, Defaults, Needs, ObjectiveFacts, Rollout, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to generate answers with a higher reward",
    have="prompts, and a way to check any answer: a reference, a function or a reward model",
    want="a model whose answers pass the check",
    metric="reward",
    data=Data(formats=(DataFormat.PROMPT,)),
    defaults=Defaults(
        learning_rate=rates(1e-5, 1e-6),
        scheduler=Scheduler.CONSTANT,
        warmup_ratio=0.0,
        epochs=1.0,
        global_batch_size=64,
        largest_batch_size=1024,
        beta=0.0,
        beta_may_be_zero=True,
        lora_dropout=False,
    ),
    rollout=Rollout(generations=8),
    needs=Needs(reward=True, reference=True),
    scores_rows=True,
)
