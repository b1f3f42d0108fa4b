"""Deletes the Jobs of attempts that are over for good, and with them their pods."""

from hone.core.children import Standing, standing
from hone.core.finetunejob.policies.superseded import superseded
from hone.core.finetunejob.state import State
from hone.core.plan import Delete


def remove_superseded(state: State) -> None:
    """Delete the Jobs of attempts that the status, as it was read, shows to be superseded."""
    for ref in sorted(superseded(state.run, state.old)):
        job = state.observed.objects.get(ref)
        if job is not None and standing(state.run.resource, job) == Standing.OURS:
            state.delete.append(Delete(ref, job["metadata"]["uid"]))
