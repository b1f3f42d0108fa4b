"""The objectives: what is trained for, each with the trainer that does it, TRL's or transformers' own.

To add one, write its module here with a `build` function and put it into `OBJECTIVES`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hone.contract.settings import Objective
from hone_trainer.objectives import classification, distillation, dpo, grpo, kto, orpo, reward, rloo, sft
from hone_trainer.objectives.inputs import Inputs

if TYPE_CHECKING:
    from transformers import Trainer

OBJECTIVES: "dict[Objective, Callable[[Inputs], Trainer]]" = {
    Objective.SFT: sft.build,
    Objective.CLASSIFICATION: classification.build,
    Objective.REWARD: reward.build,
    Objective.DPO: dpo.build,
    Objective.KTO: kto.build,
    Objective.ORPO: orpo.build,
    Objective.GRPO: grpo.build,
    Objective.RLOO: rloo.build,
    Objective.DISTILLATION: distillation.build,
}
