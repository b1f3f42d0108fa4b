"""The status of a FineTuneJob while a reconcile computes it."""

from hone.api.finetunejob_status import FineTuneJobStatus


class Draft(FineTuneJobStatus, frozen=False):
    """A mutable status; everywhere else a status is immutable."""

    @classmethod
    def of(cls, status: FineTuneJobStatus) -> "Draft":
        """A draft that starts as a copy of `status`, including its lists and maps."""
        return cls.model_validate(dict(status))
