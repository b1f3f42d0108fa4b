"""DPO: the better of two answers becomes more probable than the worse one, by TRL's DPOTrainer.

The loss of a pair (R. Rafailov et al., Direct Preference Optimization, arXiv 2305.18290, equation 7), log p being
summed over an answer's tokens, and ref the model before training:

    -log sigmoid(beta · ((log p - log p_ref)(chosen) - (log p - log p_ref)(rejected)))
"""

from typing import TYPE_CHECKING, ClassVar

from hone_trainer.data import encoders
from hone_trainer.models.architectures import CHAT
from hone_trainer.objectives.components import ActivationTerms, Components
from hone_trainer.objectives.inputs import Inputs, training_arguments

if TYPE_CHECKING:
    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.training.rank_trainer import RankTrainer


def trainer_class() -> "type[TrainerMixin]":
    """TRL's trainer with Hone's additions."""
    from trl import DPOTrainer

    from hone_trainer.objectives.reference import ReferenceMixin

    class Trainer(ReferenceMixin, DPOTrainer):
        """TRL's trainer with Hone's additions."""

        COLUMNS: ClassVar = ("ref_chosen_logps", "ref_rejected_logps")

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `prompt_ids`, `chosen_ids` and `rejected_ids`."""
    from trl import DPOConfig

    from hone_trainer.objectives.reference import ReferenceCache
    from hone_trainer.objectives.trainer import build_trainer

    plan = inputs.plan
    arguments = DPOConfig(
        **training_arguments(inputs.config, plan, inputs.output_dir),
        max_length=None,
        beta=inputs.beta,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=plan.micro_batch_size,
        disable_dropout=not plan.lora_dropout,
    )
    model, cache = inputs.load_model(CHAT.model_class()), ReferenceCache.of(inputs)
    return build_trainer(trainer_class(), inputs, model, arguments, peft_config=inputs.adapter(model), cache=cache)


COMPONENTS = Components(
    architecture=CHAT,
    encoder=encoders.of_pairs,
    trainer_class=trainer_class,
    build=build,
    scores="preferences:evaluate_pairs",
    activation_terms=ActivationTerms(sequences=2),
)
