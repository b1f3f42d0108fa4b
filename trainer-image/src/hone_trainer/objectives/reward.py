"""Reward: a score for each answer, higher for the better one of two, by TRL's RewardTrainer and a head of one output.

The loss of a pair with scores r of its answers (R. Bradley, M. Terry, 1952; the second part keeps the scores around 0:
J. Eisenstein et al., arXiv 2312.09244, equation 2):

    -log sigmoid(r_chosen - r_rejected) + 0.01 · (r_chosen + r_rejected)²
"""

from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from hone_trainer.data.labels import padding_id
from hone_trainer.models import head
from hone_trainer.objectives.inputs import Inputs, training_arguments
from hone_trainer.objectives.trainer import TrainerMixin, made

CENTER = 1e-2
"""TRL's recommendation."""


class _Trainer(TrainerMixin, RewardTrainer):
    """TRL's trainer with Hone's additions."""


def build(inputs: Inputs) -> RewardTrainer:
    """The trainer for prepared rows with `chosen_ids` and `rejected_ids`, prompt and answer in one."""
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
    model = inputs.load_model(AutoModelForSequenceClassification, **head.settings(None))
    head.initialize(model, inputs.config.hyperparameters.seed)
    if inputs.peft_config is not None and plan.zero_stage == 0:
        # PEFT keeps the adapter's matrices in fp32, but not the head: bf16 would swallow small updates.
        head.head_of(model).float()
    return made(_Trainer, inputs, model, arguments, peft_config=inputs.peft_config)
