"""DPO: the better of two answers is made likelier than the worse one, by TRL's DPOTrainer.

The loss of a pair (R. Rafailov et al., Direct Preference Optimization, arXiv 2305.18290, equation 7), log p being
summed over an answer's tokens, and ref the model before training:

    -log sigmoid(beta · ((log p - log p_ref)(chosen) - (log p - log p_ref)(rejected)))
"""

from typing import ClassVar

from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer

from hone_trainer.objectives.inputs import Inputs, training_arguments
from hone_trainer.objectives.reference import Kept, ReferenceMixin
from hone_trainer.objectives.trainer import made


class _Trainer(ReferenceMixin, DPOTrainer):
    """TRL's trainer with Hone's additions."""

    COLUMNS: ClassVar = ("ref_chosen_logps", "ref_rejected_logps")


def build(inputs: Inputs) -> DPOTrainer:
    """The trainer for prepared rows with `prompt_ids`, `chosen_ids` and `rejected_ids`."""
    plan = inputs.plan
    arguments = DPOConfig(
        **training_arguments(inputs.config, plan, inputs.output_dir),
        max_length=None,
        beta=plan.beta,
        precompute_ref_log_probs=True,
        disable_dropout=not plan.lora_dropout,
    )
    model = inputs.load_model(AutoModelForCausalLM)
    return made(_Trainer, inputs, model, arguments, peft_config=inputs.peft_config, kept=Kept.of(inputs))
