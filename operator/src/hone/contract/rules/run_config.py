"""The rules on a FineTuneJob, applied to its RunConfig."""

from typing import Any

from hone.contract.rewards import RewardFunction
from hone.contract.rules.finetunejob import RULES
from hone.contract.rules.rule import Refusal, refusals
from hone.contract.runconfig import AnswerServer, ChatTemplate, RunConfig


def refusals_of(config: RunConfig) -> list[Refusal]:
    """The rules that a run breaks, except those that can be checked only on its spec."""
    return refusals([rule for rule in RULES if not rule.spec_only], as_resource(config))


def as_resource(config: RunConfig) -> dict[str, Any]:
    """A RunConfig in the form of the FineTuneJob that it was rendered from.

    Fields with a default are always set, so a rule that distinguishes an absent field from its default is `spec_only`.
    """
    data, topology = config.data, config.topology
    spec = {
        "objective": config.objective.value,
        "method": config.method.to_dict(),
        "hyperparameters": config.hyperparameters.to_dict(),
        "checkpoint": config.checkpoint.to_dict(),
        "evaluation": config.evaluation.to_dict(),
        "dataset": _set(
            validation=_held_out(data.validation, data.validation_fraction),
            test=_held_out(data.test, data.test_fraction),
            format=data.format.value,
            columns=data.columns,
            roles=data.roles,
            trainOn=data.train_on,
            balance=data.balance,
            chatTemplate=_chat_template(data.chat_template),
            systemPrompt=data.system_prompt,
            reasoning=data.reasoning,
            splitBy=data.split_by,
            maxBadRows=data.max_bad_rows,
            minSamples=data.min_samples,
            onScarceData=data.on_scarce_data.value,
        ),
        "compute": _set(
            nodes=topology.nodes,
            gpusPerNode=topology.gpus_per_node,
            processesPerNode=topology.processes_per_node,
            zeroStage=topology.zero_stage,
            microBatchSize=topology.micro_batch_size,
            precision=topology.precision,
            offloadOptimizer=topology.offload_optimizer,
            offloadParam=topology.offload_param,
        ),
        "generation": _generation(config.answer_server),
        "teacher": _claim(config.paths.teacher),
        "reward": _reward(config),
        "search": config.search.to_dict() if config.search else None,
    }
    return {"metadata": {"name": config.job.name}, "spec": _set(**spec)}


def _set(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _claim(path: str | None) -> dict[str, Any] | None:
    return {"claim": {"path": path}} if path is not None else None


def _held_out(path: str | None, fraction: float) -> dict[str, Any]:
    return _claim(path) or {"fraction": fraction}


def _chat_template(template: ChatTemplate | None) -> dict[str, Any] | None:
    if template is None:
        return None
    return _set(name=template.name, configMap={"key": template.mounted} if template.mounted else None)


def _generation(server: AnswerServer | None) -> dict[str, Any] | None:
    return _set(engine=server.engine.value, gpusPerNode=server.gpus) if server else None


def _reward(config: RunConfig) -> dict[str, Any] | None:
    if config.reward is None:
        return None
    functions = [_function(function) for function in config.reward.functions]
    return _set(model=_claim(config.paths.reward_model), functions=functions or None)


def _function(function: RewardFunction) -> dict[str, Any]:
    own = {"key": function.file} if function.file is not None else None
    return _set(name=function.name, pattern=function.pattern, configMap=own)
