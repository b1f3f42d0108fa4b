"""The queue of a FineTuneJob: Kueue decides when its GPUs are there, and which job gives way."""

from typing import Annotated

from pydantic import Field

from hone.api.meta import DNS_LABEL_PATTERN
from hone.contract.base import Model

QueueName = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL_PATTERN)]
QUEUE = (
    "Kueue's queue for the Jobs that train and score. They are created suspended, and start when Kueue admits them. "
    "It may be edited at any time: the next attempt waits in the new one. Default: none; then they start at once, "
    "unless Kueue manages Jobs without a queue as well."
)


class Queue(Model):
    """A queue of Kueue."""

    name: Annotated[QueueName, Field(description="Name of a LocalQueue in the same namespace.")]
    priority_class: Annotated[
        QueueName | None,
        Field(
            description="Name of a WorkloadPriorityClass: which jobs are admitted first, and which are preempted. "
            "Default: the priority of the pods."
        ),
    ] = None
