"""The status of a FineTuneJob while a reconcile works it out."""

from hone.api.finetunejob_status import FineTuneJobStatus


class Draft(FineTuneJobStatus, frozen=False):
    """A status whose fields are set one by one; everywhere else a status never changes."""

    @classmethod
    def of(cls, status: FineTuneJobStatus) -> "Draft":
        """A draft that begins as `status`; its lists and maps are its own."""
        return cls.model_validate(dict(status))
