"""SFT: next-token loss on the rows' own labels, by TRL's SFTTrainer."""

from typing import TYPE_CHECKING

from hone_trainer.data import encoders
from hone_trainer.models.architectures import CHAT
from hone_trainer.objectives.components import Components
from hone_trainer.objectives.inputs import Inputs, training_arguments

if TYPE_CHECKING:
    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.training.rank_trainer import RankTrainer


def trainer_class() -> "type[TrainerMixin]":
    """TRL's trainer with Hone's additions."""
    from trl import SFTTrainer

    from hone_trainer.objectives.trainer import TrainerMixin

    class Trainer(TrainerMixin, SFTTrainer):
        """TRL's trainer with Hone's additions."""

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows, whose `labels` already say which tokens carry loss."""
    from trl import SFTConfig

    from hone_trainer.objectives.trainer import build_trainer

    arguments = SFTConfig(
        **training_arguments(inputs.config, inputs.plan, inputs.output_dir),
        # The rows are packed already: this has the collator tell by position_ids where each begins, and pad nothing.
        packing=inputs.plan.packing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    model = inputs.load_model(CHAT.model_class())
    return build_trainer(trainer_class(), inputs, model, arguments, peft_config=inputs.adapter(model))


COMPONENTS = Components(
    architecture=CHAT,
    encoder=encoders.of_answers,
    trainer_class=trainer_class,
    build=build,
    scores="answers:evaluate",
    writes_scored_answers=True,
)
