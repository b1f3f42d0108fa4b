"""The objectives as the trainer has them: one module each, with the name that the contract's list gives it.

To add one, write a module here with `COMPONENTS`, next to its record in `hone.contract.objectives`.
"""

import pkgutil

from hone.contract.objectives import Objective
from hone_trainer.objectives.components import Components


def components(objective: Objective) -> Components:
    """An objective's components; importing them imports none of the large libraries."""
    record = pkgutil.resolve_name(f"{__name__}.{objective.module}:COMPONENTS")
    assert isinstance(record, Components)
    return record
