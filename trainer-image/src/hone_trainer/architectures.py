"""The kind of model that each objective trains: transformers' class for it, and what a server of it answers."""

from dataclasses import dataclass
from typing import Any

from hone.contract.settings import Objective


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    Attributes:
        auto_class: transformers' Auto class that loads it from a base model's directory.
        task_type: PEFT's name of it; `SEQ_CLS` trains the head beside the adapter.
        api: what a server of it answers, `ArtifactSummary.api`.
        pipeline_tag: the model card's name of it.
    """

    auto_class: str
    task_type: str
    api: str
    pipeline_tag: str


ARCHITECTURES: dict[Objective, Architecture] = {
    Objective.SFT: Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation"),
    Objective.CLASSIFICATION: Architecture(
        "AutoModelForSequenceClassification", "SEQ_CLS", "Classify", "text-classification"
    ),
    Objective.DPO: Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation"),
    Objective.KTO: Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation"),
    Objective.ORPO: Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation"),
    Objective.GRPO: Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation"),
    Objective.DISTILLATION: Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation"),
    Objective.RLOO: Architecture("AutoModelForCausalLM", "CAUSAL_LM", "Chat", "text-generation"),
    Objective.REWARD: Architecture("AutoModelForSequenceClassification", "SEQ_CLS", "Reward", "text-classification"),
}


def auto_class(objective: Objective) -> Any:
    """transformers' Auto class for the objective's kind of model."""
    import transformers

    return getattr(transformers, ARCHITECTURES[objective].auto_class)
