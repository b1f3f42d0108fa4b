"""SFT: next-token loss on the rows' own answers."""

from hone.contract.objectives.base import Data, Defaults, ObjectiveFacts, rates
from hone.contract.settings import DataFormat, Scheduler

FACTS = ObjectiveFacts(
    trains="to answer like the examples in the data",
    have="conversations, or prompts with the answers that you want",
    want="a model that gives such answers",
    metric="exactMatch or rougeL or jsonFields or toolCalls or loss",
    data=Data(
        formats=(
            DataFormat.MESSAGES,
            DataFormat.PROMPT_COMPLETION,
            DataFormat.SHARE_GPT,
            DataFormat.ALPACA,
            DataFormat.TEXT,
        ),
        marks_tokens=True,
        packs=True,
    ),
    defaults=Defaults(learning_rate=rates(2e-4, 2e-5), scheduler=Scheduler.COSINE, warmup_ratio=0.03),
    compares_answers=True,
    scores_rows=True,
)
