"""Deletes the run's NetworkPolicy after the administrator has switched policies off."""

from hone.core.finetunejob.state import State
from hone.core.network import POLICY, has_unwanted, removal


def remove_policy(state: State) -> None:
    """Delete the policy if status says that there is one, and say that there is none."""
    run = state.run
    if has_unwanted(run.settings.network_policies, state.status.network_policy):
        for name in run.network_policies:
            state.delete += removal(run.resource, POLICY.ref(name), state.observed)
        state.status.network_policy = None
