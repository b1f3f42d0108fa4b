"""What the API server refuses in the spec of a FineTuneJob, as CEL rules by type."""

from collections.abc import Callable

from hone.api import meta
from hone.api.finetunejob import (
    Compute,
    Dataset,
    DataSource,
    FineTuneJobSpec,
    HeldOut,
    ModelSource,
    Reward,
    RewardFunction,
    Workspace,
)
from hone.contract.base import Model
from hone.contract.objectives import NO_ZERO, OBJECTIVES, ZERO_STAGES, ObjectiveFacts
from hone.contract.rewards import REWARDS
from hone.contract.settings import Checkpoint, DataFormat, Hyperparameters, Method, MethodType, Objective

_MATCHING = [name.value for name, facts in REWARDS.items() if facts.matches]
_OBJECTIVE = f"(has(self.objective) ? self.objective : '{Objective.SFT.value}')"


def _reads(objective: Objective) -> dict[str, str]:
    """The rule that a named format is one that the objective learns from."""
    formats = [format.value for format in OBJECTIVES[objective].formats]
    return {
        "rule": f"{_OBJECTIVE} != '{objective.value}' || !has(self.dataset.format) || "
        f"self.dataset.format in {[DataFormat.AUTO.value, *formats]}",
        "message": f"objective {objective.value} reads rows of format {' or '.join(formats)}",
    }


def _fitting(fits: Callable[[ObjectiveFacts], bool]) -> list[str]:
    return [objective.value for objective, facts in OBJECTIVES.items() if fits(facts)]


def _writes(facts: ObjectiveFacts) -> bool:
    """Whether it learns from answers that the model writes itself."""
    return facts.generations is not None


def _rewarded(facts: ObjectiveFacts) -> bool:
    """Whether it compares such answers by what they are rewarded."""
    return facts.rewarded


def _only_with(path: str, fits: Callable[[ObjectiveFacts], bool]) -> dict[str, str]:
    """The rule that a field is there only with objectives that it means something to."""
    fitting = _fitting(fits)
    return {
        "rule": f"!has(self.{path.split('.')[0]}) || !has(self.{path}) || {_OBJECTIVE} in {fitting}",
        "message": f"{path} has meaning only with objective {' or '.join(fitting)}: remove it",
    }


def _stages_of(method: MethodType) -> dict[str, str]:
    """The rule that a method runs under the ZeRO stage that is asked for."""
    stages = list(ZERO_STAGES[method])
    return {
        "rule": f"!has(self.method) || !has(self.method.type) || self.method.type != '{method.value}' || "
        f"!has(self.compute) || !has(self.compute.zeroStage) || self.compute.zeroStage in {stages}",
        "message": f"{method.value} runs under zeroStage {' or '.join(map(str, stages))}, since {NO_ZERO[method]}: "
        "use one of them, or type LoRA",
    }


def _teacher() -> dict[str, str]:
    """The rule that a teacher is there with the objectives that learn from one, and with no other."""
    fitting = _fitting(lambda facts: facts.teacher)
    return {
        "rule": f"has(self.teacher) == ({_OBJECTIVE} in {fitting})",
        "message": f"teacher names the model to learn from: give it with objective {' or '.join(fitting)}, "
        "and with no other",
    }


def _another(path: str) -> dict[str, str]:
    """The rule, of the whole resource, that a job reads no model of its own."""
    parts = path.split(".")
    absent = [f"!has(self.spec.{'.'.join(parts[: end + 1])})" for end in range(len(parts))]
    return {
        "rule": f"{' || '.join(absent)} || self.spec.{path}.name != self.metadata.name",
        "message": "a FineTuneJob cannot wait for itself; name the job whose model it shall read",
        "fieldPath": f".spec.{path}.name",
    }


ROOT_RULES = [_another(path) for path in ("model.jobRef", "reward.model.jobRef", "teacher.jobRef")]
"""Those that need the resource's name."""

RULES: dict[type[Model], list[dict[str, str]]] = {
    **meta.RULES,
    FineTuneJobSpec: [
        *(_reads(objective) for objective in OBJECTIVES),
        {
            "rule": "!has(self.model.jobRef) || !has(self.output) || !has(self.output.merge) || "
            "self.output.merge != 'Never' || (has(self.method) && has(self.method.type) && self.method.type == 'Full')",
            "message": "output.merge Never needs model.claim: an adapter of another job's model could lose it with "
            "that job; use Auto",
        },
        _only_with("dataset.trainOn", lambda facts: facts.marks_tokens),
        _only_with("dataset.balance", lambda facts: facts.balances),
        _only_with("hyperparameters.beta", lambda facts: facts.beta is not None),
        _only_with("hyperparameters.generations", _rewarded),
        _only_with("hyperparameters.maxCompletionLength", _writes),
        _only_with("hyperparameters.temperature", _writes),
        {
            "rule": "!has(self.hyperparameters) || !has(self.hyperparameters.beta) || self.hyperparameters.beta > 0.0 "
            f"|| {_OBJECTIVE} in {_fitting(lambda facts: facts.beta_may_be_zero)}",
            "message": "hyperparameters.beta 0 leaves this objective nothing to learn from: raise it, or leave it out",
        },
        {
            "rule": f"has(self.reward) == ({_OBJECTIVE} in {_fitting(_rewarded)})",
            "message": f"reward says what answers are rewarded for: give it with objective "
            f"{' or '.join(_fitting(_rewarded))}, and with no other",
        },
        *(_stages_of(method) for method in NO_ZERO),
        _teacher(),
    ],
    ModelSource: [{"rule": "has(self.claim) != has(self.jobRef)", "message": "give exactly one of claim and jobRef"}],
    Reward: [{"rule": "has(self.model) || has(self.functions)", "message": "give model, functions or both"}],
    RewardFunction: [
        {"rule": "has(self.name) != has(self.configMap)", "message": "give exactly one of name and configMap"},
        {
            "rule": f"has(self.pattern) == (has(self.name) && self.name in {_MATCHING})",
            "message": f"pattern belongs to {' or '.join(_MATCHING)}, which needs it",
        },
        {
            "rule": "!has(self.function) || has(self.configMap)",
            "message": "function has meaning only with configMap: remove it",
        },
    ],
    DataSource: [
        {"rule": "has(self.claim) != has(self.configMap)", "message": "give exactly one of claim and configMap"}
    ],
    Dataset: [
        {
            "rule": "!has(self.test) || !has(self.test.fraction) || self.test.fraction > 0.0",
            "message": "test.fraction must be above 0: the test rows are what base and tuned model are compared on",
            "fieldPath": ".test.fraction",
        }
    ],
    HeldOut: [
        {
            "rule": "(has(self.claim) ? 1 : 0) + (has(self.configMap) ? 1 : 0) + (has(self.fraction) ? 1 : 0) == 1",
            "message": "give exactly one of claim, configMap and fraction",
        }
    ],
    Method: [
        {
            "rule": "!has(self.lora) || !has(self.type) || self.type != 'Full'",
            "message": "lora has meaning only with type LoRA or QLoRA: remove it",
        },
        {
            "rule": "!has(self.freeze) || (has(self.type) && self.type == 'Full')",
            "message": "freeze has meaning only with type Full: LoRA and QLoRA train no weight of the base model",
        },
    ],
    Hyperparameters: [
        {"rule": "!(has(self.epochs) && has(self.maxSteps))", "message": "give epochs or maxSteps, not both"}
    ],
    Checkpoint: [
        {
            "rule": "!(has(self.everySteps) && has(self.everyMinutes))",
            "message": "give everySteps or everyMinutes, not both",
        }
    ],
    Compute: [
        {
            "rule": "!has(self.processesPerNode) || (has(self.gpusPerNode) ? (self.gpusPerNode == 0 || "
            "self.processesPerNode == self.gpusPerNode) : self.processesPerNode == 1)",
            "message": "processesPerNode must equal gpusPerNode: leave it out, "
            "or set gpusPerNode to 0 to train on the CPU",
        }
    ],
    Workspace: [
        {
            "rule": "!has(self.claimName) || !(has(self.size) || has(self.storageClassName) || has(self.accessModes))",
            "message": "claimName names a claim that exists: leave out size, storageClassName and accessModes",
        }
    ],
}
"""CEL rules by type. Those of the root, which freeze a started run, are generated in `crds.py`."""
