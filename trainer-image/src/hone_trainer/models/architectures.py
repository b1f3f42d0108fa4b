"""The kinds of models that objectives train: transformers' class for each, and what a server of it answers."""

from dataclasses import dataclass
from typing import Any

HEADS = ("score", "classifier")
"""Names of the modules that are heads for classes or scores, as transformers' models have them."""


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    Attributes:
        auto_class: transformers' Auto class that loads it from a base model's directory.
        task_type: PEFT's name of it; `SEQ_CLS` trains the head together with the adapter.
        api: what a server of it answers, `ArtifactSummary.api`.
        pipeline_tag: the model card's name of it.
    """

    auto_class: str
    task_type: str
    api: str
    pipeline_tag: str

    @property
    def has_head(self) -> bool:
        """Whether it has a head of its own on the base model, which is trained in any case."""
        return self.task_type == "SEQ_CLS"

    def model_class(self) -> Any:
        """transformers' Auto class itself."""
        import transformers

        return getattr(transformers, self.auto_class)


CHAT = Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation")
CLASSIFIER = Architecture("AutoModelForSequenceClassification", "SEQ_CLS", "Classify", "text-classification")
SCORER = Architecture("AutoModelForSequenceClassification", "SEQ_CLS", "Reward", "text-classification")
