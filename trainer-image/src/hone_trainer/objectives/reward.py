"""Reward: a score for each answer, higher for the better one of two, by TRL's RewardTrainer and a head of one output.

The loss of a pair with scores r of its answers (R. Bradley, M. Terry, 1952; the second part keeps the scores around 0:
J. Eisenstein et al., arXiv 2312.09244, equation 2):

    -log sigmoid(r_chosen - r_rejected) + 0.01 · (r_chosen + r_rejected)²
"""

from typing import TYPE_CHECKING

from hone_trainer.data import encoders
from hone_trainer.data.labels import padding_id
from hone_trainer.models.architectures import SCORER
from hone_trainer.objectives.components import ActivationTerms, Components
from hone_trainer.objectives.inputs import Inputs, training_arguments

if TYPE_CHECKING:
    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.training.rank_trainer import RankTrainer

CENTER = 1e-2
"""TRL's recommendation."""


def trainer_class() -> "type[TrainerMixin]":
    """TRL's trainer with Hone's additions."""
    from trl import RewardTrainer

    from hone_trainer.objectives.trainer import TrainerMixin

    class Trainer(TrainerMixin, RewardTrainer):
        """TRL's trainer with Hone's additions."""

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `chosen_ids` and `rejected_ids`, prompt and answer in one."""
    from trl import RewardConfig

    from hone_trainer.models import head
    from hone_trainer.objectives.trainer import build_trainer

    plan, tokenizer = inputs.plan, inputs.tokenizer
    # Before the model, as `load_model` says.
    arguments = RewardConfig(
        **training_arguments(inputs.config, plan, inputs.output_dir),
        max_length=None,
        center_rewards_coefficient=CENTER,
        disable_dropout=not plan.lora_dropout,
    )
    pad = padding_id(tokenizer, chat=True)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    model = inputs.load_model(SCORER.model_class(), **head.settings(None))
    head.initialize(model, inputs.config.hyperparameters.seed)
    adapter = inputs.adapter(model)
    if adapter is not None and plan.zero_stage == 0:
        # PEFT keeps the adapter's matrices in fp32, but not the head: bf16 would swallow small updates.
        head.head_of(model).float()
    return build_trainer(trainer_class(), inputs, model, arguments, peft_config=adapter)


COMPONENTS = Components(
    architecture=SCORER,
    encoder=encoders.of_scored_pairs,
    trainer_class=trainer_class,
    build=build,
    scores="pairs:evaluate",
    activation_terms=ActivationTerms(sequences=2),
)
