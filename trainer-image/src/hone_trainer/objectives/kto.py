"""KTO: good answers become more probable and bad ones less probable, by TRL's KTOTrainer.

The loss of an answer y to x (K. Ethayarajh et al., KTO, arXiv 2402.01306, equation 7), with r = log p - log p_ref
summed over its tokens, and ref the model before training; z is the mean of r for answers to other prompts:

    weight · (1 - sigmoid(beta · (r - z)))  of a good one,  weight · (1 - sigmoid(beta · (z - r)))  of a bad one
"""

from typing import TYPE_CHECKING, ClassVar

from hone.contract.settings import Balance
from hone_trainer.data import encoders
from hone_trainer.data.classes import rated_weights
from hone_trainer.models.architectures import CHAT
from hone_trainer.objectives.components import Components
from hone_trainer.objectives.inputs import Inputs, training_arguments

if TYPE_CHECKING:
    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.training.rank_trainer import RankTrainer


def trainer_class() -> "type[TrainerMixin]":
    """TRL's trainer with Hone's additions."""
    from trl import KTOTrainer

    from hone_trainer.objectives.reference import ReferenceMixin

    class Trainer(ReferenceMixin, KTOTrainer):
        """TRL's trainer with Hone's additions."""

        COLUMNS: ClassVar = ("ref_logps", "ref_KL_logps")

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `prompt_ids`, `completion_ids`, `KL_completion_ids` and `label`.

    Raises:
        ValueError: the prepared data do not tell how many rows of each rating there are.
    """
    from trl import KTOConfig

    from hone_trainer.objectives.reference import ReferenceCache
    from hone_trainer.objectives.trainer import build_trainer

    classes, plan = inputs.prepared.classes, inputs.plan
    if classes is None:
        raise ValueError(f"{inputs.prepared.directory} holds no ratings")
    good, bad = rated_weights(classes) if plan.balance == Balance.WEIGHT else (1.0, 1.0)
    arguments = KTOConfig(
        **training_arguments(inputs.config, plan, inputs.output_dir),
        # Only prompts with the answer of another row can be longer.
        max_length=plan.sequence_length,
        beta=inputs.beta,
        desirable_weight=good,
        undesirable_weight=bad,
        precompute_ref_log_probs=True,
        disable_dropout=not plan.lora_dropout,
    )
    model, cache = inputs.load_model(CHAT.model_class()), ReferenceCache.of(inputs)
    return build_trainer(trainer_class(), inputs, model, arguments, peft_config=inputs.adapter(model), cache=cache)


COMPONENTS = Components(
    architecture=CHAT,
    encoder=encoders.of_ratings,
    trainer_class=trainer_class,
    build=build,
    scores="preferences:evaluate_rated",
    fixed_order="KTO compares with the mean of a micro-batch, which follows from lengths.",
)
