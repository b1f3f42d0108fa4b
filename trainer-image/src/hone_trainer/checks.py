"""Settings that cannot be right, whatever the data and the model are."""

from hone.contract.runconfig import RunConfig
from hone.contract.settings import MethodType, Objective
from hone_trainer.errors import BadInput
from hone_trainer.packing import refuse_packing


def check_settings(config: RunConfig) -> None:
    """Refuse such settings.

    Raises:
        BadInput: naming the field.
    """
    if config.method.type is MethodType.FULL and config.method.lora is not None:
        raise BadInput(
            "spec.method.lora", "is set, but spec.method.type is Full", "Leave lora out, or set type to LoRA."
        )
    if config.method.type is MethodType.LORA and config.method.freeze is not None:
        raise BadInput(
            "spec.method.freeze",
            "is set, but spec.method.type is LoRA, which trains no weight of the base model",
            "Leave freeze out, or set type to Full.",
        )
    if config.objective is Objective.CLASSIFICATION and config.data.train_on is not None:
        raise BadInput("spec.dataset.trainOn", "has no meaning with objective Classification", "Leave it out.")
    if config.objective is not Objective.CLASSIFICATION and config.data.balance is not None:
        raise BadInput("spec.dataset.balance", "has meaning only with objective Classification", "Leave it out.")
    if config.hyperparameters.epochs is not None and config.hyperparameters.max_steps is not None:
        raise BadInput("spec.hyperparameters.maxSteps", "is set together with epochs", "Leave one of them out.")
    if config.checkpoint.every_steps is not None and config.checkpoint.every_minutes is not None:
        raise BadInput("spec.checkpoint.everyMinutes", "is set together with everySteps", "Leave one of them out.")
    if config.topology.zero_stage not in (None, 0, 2, 3):
        raise BadInput("spec.compute.zeroStage", f"{config.topology.zero_stage} is not supported", "Use 0, 2 or 3.")
    refuse_packing(config)
    held_out = config.data.validation_fraction * (config.data.validation is None)
    held_out += config.data.test_fraction * (config.data.test is None)
    if held_out >= 1:
        raise BadInput(
            "spec.dataset.validation.fraction",
            f"validation and test together take {held_out:.0%} of the rows",
            "Lower the fractions; nothing would be left to train on.",
        )
