"""Classification: cross-entropy over the classes of a text, by transformers' Trainer and a head for the classes.

Where a text may have several classes, each class is a decision of its own, by binary cross-entropy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hone.contract.settings import Balance
from hone_trainer.data import encoders
from hone_trainer.data.classes import Classes
from hone_trainer.data.labels import padding_id
from hone_trainer.models.architectures import CLASSIFIER
from hone_trainer.objectives.components import Components
from hone_trainer.objectives.inputs import Inputs, training_arguments

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import SequenceClassifierOutputWithPast

    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.training.rank_trainer import RankTrainer


def trainer_class() -> "type[TrainerMixin]":
    """transformers' trainer with Hone's additions."""
    from transformers import Trainer

    from hone_trainer.objectives.trainer import TrainerMixin

    class ClassTrainer(TrainerMixin, Trainer):
        """transformers' trainer with Hone's additions."""

    return ClassTrainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with a `label` each.

    Raises:
        ValueError: the prepared data have no classes.
    """
    from transformers import DataCollatorWithPadding, TrainingArguments

    from hone_trainer.objectives.trainer import build_trainer

    classes, plan, tokenizer = inputs.prepared.classes, inputs.plan, inputs.tokenizer
    if classes is None:
        raise ValueError(f"{inputs.prepared.directory} holds no classes")
    # Before the model, as `load_model` says.
    arguments = TrainingArguments(
        **training_arguments(inputs.config, plan, inputs.output_dir), include_num_input_tokens_seen="non_padding"
    )
    model = _model(inputs, classes)
    weights = classes.weights() if plan.balance == Balance.WEIGHT else None
    padding = DataCollatorWithPadding(tokenizer)
    return build_trainer(
        trainer_class(),
        inputs,
        model,
        arguments,
        data_collator=WithClasses(padding, len(classes.names)) if classes.several else padding,
        compute_loss_func=binary_cross_entropy(weights) if classes.several else cross_entropy(weights),
    )


@dataclass(frozen=True)
class WithClasses:
    """A collator that makes 1 of the classes that a row has, and 0 of the others.

    Attributes:
        padding: collates everything else.
        count: of all classes.
    """

    padding: "Callable[[list[dict[str, Any]]], Any]"
    count: int

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """A batch, its labels of shape [rows, classes]."""
        import torch

        batch = self.padding([{name: value for name, value in row.items() if name != "label"} for row in rows])
        labels = torch.zeros(len(rows), self.count)
        for chosen, row in zip(labels, rows, strict=True):
            chosen[row["label"]] = 1.0
        batch["labels"] = labels
        return batch


def _model(inputs: Inputs, classes: Classes) -> "PreTrainedModel":
    """The base model with a head for the classes, and the adapter where one is trained."""
    from hone_trainer.models import head

    tokenizer = inputs.tokenizer
    pad = padding_id(tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    model = inputs.load_model(CLASSIFIER.model_class(), **head.settings(classes))
    model.config.get_text_config().pad_token_id = pad
    head.initialize(model, inputs.config.hyperparameters.seed)
    adapter = inputs.adapter(model)
    if adapter is not None:
        from peft import get_peft_model

        if inputs.plan.zero_stage == 0:
            # PEFT keeps the adapter's matrices in fp32, but not the head: bf16 would swallow small updates.
            head.head_of(model).float()
        # To its callers, PEFT's wrapper is the model that it wraps.
        return cast("PreTrainedModel", get_peft_model(model, adapter))
    return model


def cross_entropy(weights: list[float] | None) -> "Callable[..., torch.Tensor]":
    """A loss for the Trainer: the mean over all rows of the step of weight × cross-entropy, in nats.

    Divided by the step's rows over all micro-batches and ranks, and not by the sum of the micro-batch's weights as
    torch does: so the loss does not depend on how a step is cut into micro-batches. The model's own loss would: it is
    a mean over each micro-batch, but the Trainer takes it for one over the step.

    Args:
        weights: one per class; None: all 1.
    """
    import torch

    def loss(
        outputs: "SequenceClassifierOutputWithPast",
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        if outputs.logits is None:
            raise ValueError("the model gives no logits")
        logits = outputs.logits.float()
        weight = None if weights is None else torch.tensor(weights, device=logits.device)
        total = torch.nn.functional.cross_entropy(logits, labels.to(logits.device), weight=weight, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


def binary_cross_entropy(weights: list[float] | None) -> "Callable[..., torch.Tensor]":
    """A loss for the Trainer: the mean over all rows of the step and all classes of binary cross-entropy, in nats.

    Divided as in `cross_entropy`; the Trainer counts every entry of the labels.

    Args:
        weights: for each class, how much a row that has it weighs; None: all 1.
    """
    import torch

    def loss(
        outputs: "SequenceClassifierOutputWithPast",
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        if outputs.logits is None:
            raise ValueError("the model gives no logits")
        logits = outputs.logits.float()
        weight = None if weights is None else torch.tensor(weights, device=logits.device)
        total = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels.to(logits.device), pos_weight=weight, reduction="sum"
        )
        return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    return loss


COMPONENTS = Components(
    architecture=CLASSIFIER,
    encoder=encoders.of_classes,
    trainer_class=trainer_class,
    build=build,
    scores="classes:evaluate",
)
