"""ORPO: answers are learned and at once preferred to worse ones, without a model to compare with, by TRL's ORPOTrainer.

The loss of a pair (J. Hong et al., ORPO, arXiv 2403.07691, equations 6 and 7), log p being the mean over an answer's
tokens, and odds p / (1 - p):

    -log p(prompt and chosen) - beta · log sigmoid(log odds(chosen) - log odds(rejected))
"""

from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.objectives.inputs import Inputs, training_arguments
from hone_trainer.objectives.trainer import TrainerMixin, made

if TYPE_CHECKING:
    from datasets import Dataset


class _Trainer(TrainerMixin, ORPOTrainer):
    """TRL's trainer with Hone's additions, for rows prepared already."""

    def __init__(self, *args: object, train_dataset: "Dataset", **kwargs: object) -> None:
        # In memory, or TRL's own passes over the rows would be written beside those that all runs share.
        super().__init__(*args, train_dataset=train_dataset.map(_ids_and_labels, keep_in_memory=True), **kwargs)

    def tokenize_row(self, feature: dict[str, Any], *_: object) -> dict[str, Any]:
        """Nothing more."""
        return feature

    def set_validation(self, rows: "Dataset") -> None:
        """Evaluate on these rows."""
        super().set_validation(rows.map(_ids_and_labels, keep_in_memory=True))


def _ids_and_labels(row: dict[str, Any]) -> dict[str, list[int]]:
    """What TRL's collator pads."""
    found: dict[str, list[int]] = {}
    for answer in ("chosen", "rejected"):
        prompt, ids = row["prompt_ids"], row[f"{answer}_ids"]
        found[f"{answer}_input_ids"] = prompt + ids
        found[f"{answer}_attention_mask"] = [1] * len(prompt + ids)
        found[f"{answer}_labels"] = [IGNORE_INDEX] * len(prompt) + ids
    return found


def build(inputs: Inputs) -> ORPOTrainer:
    """The trainer for prepared rows with `prompt_ids`, `chosen_ids` and `rejected_ids`."""
    plan, tokenizer = inputs.plan, inputs.tokenizer
    arguments = ORPOConfig(
        **training_arguments(inputs.config, plan, inputs.output_dir),
        max_length=plan.sequence_length,
        beta=plan.beta,
        disable_dropout=not plan.lora_dropout,
        remove_unused_columns=False,
    )
    if tokenizer.pad_token is None:
        # Masked out, so any will do.
        tokenizer.pad_token = tokenizer.eos_token
    return made(_Trainer, inputs, inputs.load_model(AutoModelForCausalLM), arguments, peft_config=inputs.peft_config)
