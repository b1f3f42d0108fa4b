"""ORPO: better answers are learned and preferred to worse ones in one loss, without a reference, by TRL's ORPOTrainer.

The loss of a pair (J. Hong et al., ORPO, arXiv 2403.07691, equations 6 and 7), log p being the mean over an answer's
tokens, and odds p / (1 - p):

    -log p(prompt and chosen) - beta · log sigmoid(log odds(chosen) - log odds(rejected))
"""

from typing import TYPE_CHECKING, Any

from hone_trainer.data import encoders
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.models.architectures import CHAT
from hone_trainer.objectives.components import ActivationTerms, Components
from hone_trainer.objectives.inputs import Inputs, training_arguments

if TYPE_CHECKING:
    from datasets import Dataset

    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.training.rank_trainer import RankTrainer


def trainer_class() -> "type[TrainerMixin]":
    """TRL's trainer with Hone's additions."""
    from trl.experimental.orpo import ORPOTrainer

    from hone_trainer.objectives.trainer import TrainerMixin

    class Trainer(TrainerMixin, ORPOTrainer):
        """TRL's trainer with Hone's additions, for rows that are prepared already."""

        def __init__(self, *args: Any, train_dataset: "Dataset", **kwargs: Any) -> None:
            # In memory, or TRL's own passes over the rows would be written next to those that all runs share.
            rows = train_dataset.map(_ids_and_labels, keep_in_memory=True)
            # What `args` holds is unknown here; it is never the rows.
            super().__init__(*args, train_dataset=rows, **kwargs)  # type: ignore[misc]

        def tokenize_row(self, feature: dict[str, Any], *_: object) -> dict[str, Any]:
            """The row as it is."""
            return feature

        def set_validation(self, rows: "Dataset") -> None:
            """Evaluate on these rows."""
            super().set_validation(rows.map(_ids_and_labels, keep_in_memory=True))

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `prompt_ids`, `chosen_ids` and `rejected_ids`."""
    from trl.experimental.orpo import ORPOConfig

    from hone_trainer.objectives.trainer import build_trainer

    plan, tokenizer = inputs.plan, inputs.tokenizer
    arguments = ORPOConfig(
        **training_arguments(inputs.config, plan, inputs.output_dir),
        max_length=plan.sequence_length,
        beta=inputs.beta,
        disable_dropout=not plan.lora_dropout,
        remove_unused_columns=False,
    )
    if tokenizer.pad_token is None:
        # Masked out, so any will do.
        tokenizer.pad_token = tokenizer.eos_token
    model = inputs.load_model(CHAT.model_class())
    return build_trainer(trainer_class(), inputs, model, arguments, peft_config=inputs.adapter(model))


def _ids_and_labels(row: dict[str, Any]) -> dict[str, list[int]]:
    """What TRL's collator pads."""
    columns: dict[str, list[int]] = {}
    for answer in ("chosen", "rejected"):
        prompt, ids = row["prompt_ids"], row[f"{answer}_ids"]
        columns[f"{answer}_input_ids"] = prompt + ids
        columns[f"{answer}_attention_mask"] = [1] * len(prompt + ids)
        columns[f"{answer}_labels"] = [IGNORE_INDEX] * len(prompt) + ids
    return columns


COMPONENTS = Components(
    architecture=CHAT,
    encoder=encoders.of_pairs,
    trainer_class=trainer_class,
    build=build,
    scores="preferences:evaluate_pairs",
    activation_terms=ActivationTerms(sequences=2, full_logits=True),
    fixed_order="ORPO's loss is a mean over the tokens of a micro-batch, so it depends on which rows are in one.",
)
