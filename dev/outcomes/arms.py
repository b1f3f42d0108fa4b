"""The settings that `dev.outcomes` compares: Hone's own choices, and the defaults of TRL and PEFT."""

import dataclasses
from typing import Any

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective

TRL_CONFIGS = {
    Objective.SFT: "SFTConfig",
    Objective.CLASSIFICATION: "TrainingArguments",
    Objective.DPO: "DPOConfig",
    Objective.REWARD: "RewardConfig",
}
"""The class whose defaults someone gets who sets nothing. TRL has no classification; transformers' Trainer does it."""
ARMS = ("TRL's defaults", "Hone's defaults")


def settings(arm: str, objective: Objective, method: MethodType) -> dict[str, Any]:
    """What the RunConfig of an arm sets."""
    chosen: dict[str, Any] = {"method": {"type": method}}
    if arm == "TRL's defaults":
        chosen["hyperparameters"] = _trl(objective)
        chosen["checkpoint"] = {"select": "Last"}
        if method is MethodType.LORA:
            chosen["method"]["lora"] = _peft()
    return chosen


def _trl(objective: Objective) -> dict[str, Any]:
    import transformers
    import trl

    name = TRL_CONFIGS[objective]
    config = getattr(trl, name, None) or getattr(transformers, name)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    chosen = {
        "learningRate": defaults["learning_rate"],
        "epochs": defaults["num_train_epochs"],
        "globalBatchSize": defaults["per_device_train_batch_size"],
        "scheduler": "Linear",
        "warmupRatio": 0.0,
        "weightDecay": defaults["weight_decay"],
        "maxGradNorm": defaults["max_grad_norm"],
    }
    return {**chosen, "packing": False} if objective is Objective.SFT else chosen


def _peft() -> dict[str, Any]:
    from peft import LoraConfig

    defaults = {field.name: field.default for field in dataclasses.fields(LoraConfig)}
    return {"rank": defaults["r"], "alpha": defaults["lora_alpha"], "dropout": defaults["lora_dropout"]}
