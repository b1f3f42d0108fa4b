"""Settings that are wrong whatever the data and the model are."""

from hone.contract.rules.run_config import refusals_of
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.errors import BadInput


def check_settings(config: RunConfig) -> None:
    """Refuse what a rule refuses.

    Raises:
        BadInput: naming the field.
    """
    for field, message, remedy in refusals_of(config):
        raise BadInput(field, message, remedy)
