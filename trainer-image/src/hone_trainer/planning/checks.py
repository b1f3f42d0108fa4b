"""Settings that cannot be right, whatever the data and the model are."""

from hone.contract.objectives import NO_ZERO, OBJECTIVES, ZERO_STAGES
from hone.contract.runconfig import RunConfig
from hone_trainer.planning.packing import refuse_packing
from hone_trainer.protocol.errors import BadInput


def check_settings(config: RunConfig) -> None:
    """Refuse such settings.

    Raises:
        BadInput: naming the field.
    """
    method = config.method.type
    if not method.adapts and config.method.lora is not None:
        raise BadInput(
            "spec.method.lora",
            f"is set, but spec.method.type is {method.value}",
            "Leave lora out, or set type to LoRA or QLoRA.",
        )
    if method.adapts and config.method.freeze is not None:
        raise BadInput(
            "spec.method.freeze",
            f"is set, but spec.method.type is {method.value}, which trains no weight of the base model",
            "Leave freeze out, or set type to Full.",
        )
    objective = OBJECTIVES[config.objective]
    if method not in objective.learning_rate:
        raise BadInput(
            "spec.method.type",
            f"{method.value} does not go with objective {config.objective.value}",
            f"Use {' or '.join(other.value for other in objective.learning_rate)}.",
        )
    if config.data.train_on is not None and not objective.marks_tokens:
        raise BadInput(
            "spec.dataset.trainOn", f"has no meaning with objective {config.objective.value}", "Leave it out."
        )
    if config.hyperparameters.beta is not None and objective.beta is None:
        raise BadInput(
            "spec.hyperparameters.beta", f"has no meaning with objective {config.objective.value}", "Leave it out."
        )
    if config.hyperparameters.beta == 0 and not objective.beta_may_be_zero:
        raise BadInput(
            "spec.hyperparameters.beta",
            f"is 0, which leaves objective {config.objective.value} nothing to learn from",
            "Use more than 0, or leave it out.",
        )
    for field, asked in (
        ("generations", config.hyperparameters.generations),
        ("maxCompletionLength", config.hyperparameters.max_completion_length),
        ("temperature", config.hyperparameters.temperature),
    ):
        fits = objective.rewarded if field == "generations" else objective.generations
        if asked is not None and not fits:
            raise BadInput(
                f"spec.hyperparameters.{field}",
                f"has no meaning with objective {config.objective.value}",
                "Leave it out.",
            )
    if (config.reward is not None) != objective.rewarded:
        raise BadInput(
            "spec.reward",
            f"{'is missing' if config.reward is None else 'has no meaning'} with objective {config.objective.value}",
            "Say what answers are rewarded for." if config.reward is None else "Leave it out.",
        )
    if (config.paths.teacher is not None) != objective.teacher:
        missing = objective.teacher
        raise BadInput(
            "spec.teacher",
            f"{'is missing' if missing else 'has no meaning'} with objective {config.objective.value}",
            "Name the model to learn from." if missing else "Leave it out.",
        )
    if config.data.balance is not None and not objective.balances:
        raise BadInput(
            "spec.dataset.balance", f"has no meaning with objective {config.objective.value}", "Leave it out."
        )
    if config.hyperparameters.epochs is not None and config.hyperparameters.max_steps is not None:
        raise BadInput("spec.hyperparameters.maxSteps", "is set together with epochs", "Leave one of them out.")
    if config.checkpoint.every_steps is not None and config.checkpoint.every_minutes is not None:
        raise BadInput("spec.checkpoint.everyMinutes", "is set together with everySteps", "Leave one of them out.")
    stages = ZERO_STAGES[method]
    if config.topology.zero_stage not in (None, *stages):
        raise BadInput(
            "spec.compute.zeroStage",
            f"{config.topology.zero_stage} is not supported with {method.value}"
            + (f": {NO_ZERO[method]}" if method in NO_ZERO else ""),
            f"Use {', '.join(map(str, stages[:-1]))} or {stages[-1]}"
            + (", or spec.method.type LoRA." if method in NO_ZERO else "."),
        )
    refuse_packing(config)
    if config.data.test is None and config.data.test_fraction <= 0:
        raise BadInput(
            "spec.dataset.test.fraction",
            "is 0, but the test rows are what base and tuned model are compared on",
            "Raise it, or name test rows of their own.",
        )
    held_out = config.data.validation_fraction * (config.data.validation is None)
    held_out += config.data.test_fraction * (config.data.test is None)
    if held_out >= 1:
        raise BadInput(
            "spec.dataset.validation.fraction",
            f"validation and test together take {held_out:.0%} of the rows",
            "Lower the fractions; nothing would be left to train on.",
        )
