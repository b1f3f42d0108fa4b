"""The objectives: the only list of them, each with its record in the module of its name.

The CRD's descriptions and rules, the trainer's checks and plan, the documentation's tables and the tests read the
records. To add an objective, add a line to `Objective` and a module with `FACTS`.
"""

import pkgutil
from collections.abc import Mapping
from enum import StrEnum

from hone.contract.objectives.base import Data, Defaults, Labels, Needs, ObjectiveFacts, Rollout
from hone.contract.settings import DataFormat

__all__ = [
    "OBJECTIVES",
    "Data",
    "Defaults",
    "Labels",
    "Needs",
    "Objective",
    "ObjectiveFacts",
    "Rollout",
    "objectives_of",
]


class Objective(StrEnum):
    """Training objective."""

    SFT = "SFT"
    CLASSIFICATION = "Classification"
    REWARD = "Reward"
    DPO = "DPO"
    KTO = "KTO"
    ORPO = "ORPO"
    GRPO = "GRPO"
    RLOO = "RLOO"
    DISTILLATION = "Distillation"

    @property
    def facts(self) -> ObjectiveFacts:
        """The objective's record."""
        return OBJECTIVES[self]

    @property
    def module(self) -> str:
        """The name of its module, here and in the trainer."""
        return self.value.lower()


def _facts(objective: Objective) -> ObjectiveFacts:
    facts = pkgutil.resolve_name(f"{__name__}.{objective.module}:FACTS")
    assert isinstance(facts, ObjectiveFacts)
    return facts


OBJECTIVES: Mapping[Objective, ObjectiveFacts] = {objective: _facts(objective) for objective in Objective}
"""Every objective's record, in the order in which pages show them."""


def objectives_of(format: DataFormat) -> list[Objective]:
    """The objectives that learn from rows of a format."""
    return [objective for objective, facts in OBJECTIVES.items() if format in facts.data.formats]
