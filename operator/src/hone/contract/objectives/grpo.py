"""GRPO: answers rewarded more than others to the same prompt become likelier, by the group's mean and deviation."""

from hone.contract.objectives.base import Data, Defaults, Needs, ObjectiveFacts, Rollout, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to give answers that are rewarded more than its other ones",
    have="prompts, and a check of any answer: a reference, a function or a reward model",
    want="a model whose own answers pass it",
    metric="reward",
    data=Data(formats=(DataFormat.PROMPT,)),
    defaults=Defaults(
        learning_rate=rates(1e-5, 1e-6),
        scheduler=Scheduler.CONSTANT,
        warmup_ratio=0.0,
        epochs=1.0,
        global_batch_size=64,
        beta=0.0,
        beta_may_be_zero=True,
        lora_dropout=False,
    ),
    rollout=Rollout(generations=8),
    needs=Needs(reward=True, reference=True),
)
