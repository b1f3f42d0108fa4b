"""SFT: next-token loss on the rows' own labels, by TRL's SFTTrainer."""

from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from hone_trainer.objectives.inputs import Inputs, training_arguments
from hone_trainer.objectives.trainer import TrainerMixin, made


class _Trainer(TrainerMixin, SFTTrainer):
    """TRL's trainer with Hone's additions."""


def build(inputs: Inputs) -> SFTTrainer:
    """The trainer for prepared rows, whose `labels` already say which tokens carry loss."""
    arguments = SFTConfig(
        **training_arguments(inputs.config, inputs.plan, inputs.output_dir),
        # The rows are packed already: this has the collator tell by position_ids where each begins, and pad nothing.
        packing=inputs.plan.packing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return made(_Trainer, inputs, inputs.load_model(AutoModelForCausalLM), arguments, peft_config=inputs.peft_config)
