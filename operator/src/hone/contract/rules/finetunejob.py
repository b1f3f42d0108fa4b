"""The rules on a FineTuneJob. Those on objectives and methods follow from their tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from hone.contract.expressions import Compare, Expression, IsSet, Matches, OneOf, Sum, Value
from hone.contract.methods import ADAPTER_METHODS, METHODS, WEIGHT_METHODS, MethodType
from hone.contract.objectives import OBJECTIVES, Objective, ObjectiveFacts
from hone.contract.rewards import REWARDS
from hone.contract.rules.places import (
    CLAIM_PATHS,
    DATA_SOURCES,
    HELD_OUT,
    IMAGES,
    MIXED_SOURCES,
    MODEL_SOURCES,
    REMOTE_ROWS,
    device,
    digest_of_a_file,
    exactly_one,
    inside_the_volume,
    no_login,
    not_of_the_cluster,
    not_reserved,
    one_value,
    only_at,
    only_with,
    pinned,
)
from hone.contract.rules.pods import pod_settings
from hone.contract.rules.rule import Rule
from hone.contract.rules.scores import GATE_RULES, ON_SCORES
from hone.contract.rules.search import on_search
from hone.contract.settings import OPTIMIZERS_8_BIT, Balance, DataFormat, GenerationEngine, TrainOn

Objectives = Mapping[Objective, ObjectiveFacts]

OBJECTIVE = Value("objective", Objective.SFT.value)
METHOD = Value("method.type", MethodType.LORA.value)
GPUS = Value("compute.gpusPerNode", 1)
ADAPTS = OneOf(METHOD, ADAPTER_METHODS)
FUNCTIONS = "spec.reward.functions[]"
VARIABLES = ("spec.compute.pod.env[]",)
POD_SETTINGS = ("spec.compute.pod",)
ALL_STAGES = tuple(sorted({stage for facts in METHODS.values() for stage in facts.zero_stages}))
MATCHING = tuple(name.value for name, facts in REWARDS.items() if facts.matches)


def rules(objectives: Objectives = OBJECTIVES) -> tuple[Rule, ...]:
    """All rules; the trainer reports the first one that is broken."""
    return (
        *_on_methods(objectives),
        *_on_placement(),
        *_on_generation(),
        *_on_objectives(objectives),
        *_on_data(objectives),
        *_ON_REWARDS,
        *on_search(objectives),
        *_ON_RESOURCES,
        *(exactly_one(place, "claim", "jobRef", "uri", "image") for place in MODEL_SOURCES),
        *(only_with(place, "credentialsSecretRef", "uri") for place in MODEL_SOURCES),
        *(only_at(place, "revision", "hf://") for place in MODEL_SOURCES),
        *(only_at(place, "s3", "s3://") for place in MODEL_SOURCES),
        *(exactly_one(place, "claim", "configMap", "uri", "image", "sources") for place in DATA_SOURCES),
        *(exactly_one(place, "claim", "configMap", "uri", "image") for place in MIXED_SOURCES),
        *(exactly_one(place, "claim", "configMap", "uri", "image", "fraction") for place in HELD_OUT),
        *(only_at(place, field, "hf://") for place in REMOTE_ROWS for field in ("revision", "config", "split")),
        *(only_at(place, "s3", "s3://") for place in REMOTE_ROWS),
        *(only_at(place, "sha256", "https://") for place in REMOTE_ROWS),
        *(rule(place) for place in REMOTE_ROWS for rule in (digest_of_a_file, no_login)),
        *(inside_the_volume(place) for place in (*CLAIM_PATHS, *IMAGES)),
        *(pinned(place) for place in IMAGES),
        *(rule(place) for place in VARIABLES for rule in (one_value, not_reserved)),
        *(not_of_the_cluster(place) for place in POD_SETTINGS),
        *(rule for place in POD_SETTINGS for rule in pod_settings(place)),
        exactly_one(GATE_RULES, "min", "max", "minImprovement", "maxRegression"),
        *ON_SCORES,
        *(_not_itself(f"{place}.jobRef.name") for place in MODEL_SOURCES),
    )


def either(names: Sequence[object]) -> str:
    """Names as a sentence lists them: `a`, `a or b`, `a, b or c`."""
    *others, last = map(str, names)
    return f"{', '.join(others)} or {last}" if others else last


def _names(objectives: Objectives, fits: Callable[[ObjectiveFacts], object]) -> tuple[str, ...]:
    return tuple(objective.value for objective, facts in objectives.items() if fits(facts))


def _only_with(path: str, names: tuple[str, ...]) -> Rule:
    """The rule that a field is set only with objectives that support it."""
    return Rule(
        path=f"spec.{path}",
        applies_if=IsSet(path) & ~OneOf(OBJECTIVE, names),
        message=f"is supported only with objective {either(names)}",
        remedy="Remove it.",
    )


def _needed_with(path: str, names: tuple[str, ...], purpose: str) -> Iterator[Rule]:
    """The rules that a field is set with these objectives, and with no other."""
    yield Rule(
        path=f"spec.{path}",
        applies_if=~IsSet(path) & OneOf(OBJECTIVE, names),
        message=f"is required with objective {either(names)}",
        remedy=purpose,
    )
    yield _only_with(path, names)


def _on_objectives(objectives: Objectives) -> Iterator[Rule]:
    yield _only_with("dataset.trainOn", _names(objectives, lambda facts: facts.data.marks_tokens))
    yield _only_with("evaluation.metrics", _names(objectives, lambda facts: facts.compares_answers))
    yield Rule(
        path="spec.evaluation.metrics",
        applies_if=IsSet("evaluation.metrics") & Compare(Value("dataset.format"), "==", DataFormat.TEXT.value),
        message="is not supported with format Text: raw text has no answers to compare",
        remedy="Remove it.",
    )
    for field in ("evaluation.judge", "evaluation.benchmarks", "evaluation.scorers"):
        yield _only_with(field, _names(objectives, lambda facts: facts.compares_answers))
        yield Rule(
            path=f"spec.{field}",
            applies_if=IsSet(field) & Compare(Value("dataset.format"), "==", DataFormat.TEXT.value),
            message="is not supported with format Text: raw text has no answers to compare",
            remedy="Remove it.",
        )
    yield _only_with("evaluation.groupBy", _names(objectives, lambda facts: facts.scores_rows))
    yield _only_with("evaluation.retention", _names(objectives, lambda facts: not facts.has_head))
    yield from _on_balance(_names(objectives, lambda facts: facts.data.balances))
    yield _only_with("hyperparameters.beta", _names(objectives, lambda facts: facts.defaults.beta is not None))
    above_zero = _names(
        objectives, lambda facts: facts.defaults.beta is not None and not facts.defaults.beta_may_be_zero
    )
    yield Rule(
        path="spec.hyperparameters.beta",
        applies_if=Compare(Value("hyperparameters.beta"), "<=", 0.0) & OneOf(OBJECTIVE, above_zero),
        message=f"must be above 0 with objective {either(above_zero)}: with 0 the model would learn no preference",
        remedy="Set it above 0, or remove it to use the default.",
    )
    packing = _names(objectives, lambda facts: facts.data.packs)
    yield Rule(
        path="spec.hyperparameters.packing",
        applies_if=Compare(Value("hyperparameters.packing"), "==", True) & ~OneOf(OBJECTIVE, packing),
        message=f"can be true only with objective {either(packing)}: rows of other objectives cannot be packed",
        remedy="Remove it.",
    )
    rewarded = _names(objectives, lambda facts: facts.needs.reward)
    writing = _names(objectives, lambda facts: facts.generates)
    yield _only_with("hyperparameters.generations", rewarded)
    yield _only_with("hyperparameters.maxCompletionLength", writing)
    yield _only_with("hyperparameters.temperature", writing)
    yield _only_with("generation", writing)
    yield from _needed_with("reward", rewarded, "Set a reward model, reward functions or both.")
    yield from _needed_with(
        "teacher", _names(objectives, lambda facts: facts.needs.teacher), "Set the model to learn from."
    )


def _on_balance(labeled: tuple[str, ...]) -> Iterator[Rule]:
    """The rules on how classes, or groups, of unequal size are balanced."""
    balance = Value("dataset.balance")
    oversamples = Compare(balance, "==", Balance.OVERSAMPLE.value)
    yield Rule(
        path="spec.dataset.balance",
        applies_if=IsSet("dataset.balance") & ~oversamples & ~OneOf(OBJECTIVE, labeled),
        message=f"is supported only with objective {either(labeled)}, unless it is Oversample",
        remedy="Remove it.",
    )
    yield Rule(
        path="spec.dataset.balance",
        applies_if=oversamples & ~OneOf(OBJECTIVE, labeled) & ~IsSet("evaluation.groupBy"),
        message=f"can be Oversample only with objective {either(labeled)}, whose rows have labels, or with "
        "evaluation.groupBy",
        remedy="Remove it, or set evaluation.groupBy to the column with the groups.",
    )


def _on_methods(objectives: Objectives) -> Iterator[Rule]:
    for objective, facts in objectives.items():
        if others := tuple(method.value for method in MethodType if method not in facts.defaults.learning_rate):
            yield Rule(
                path="spec.method.type",
                applies_if=Compare(OBJECTIVE, "==", objective.value) & OneOf(METHOD, others),
                message=f"cannot be {either(others)} with objective {objective.value}",
                remedy=f"Use {either([method.value for method in facts.defaults.learning_rate])}.",
            )
    yield Rule(
        path="spec.method.lora",
        applies_if=IsSet("method.lora") & ~ADAPTS,
        message=f"is supported only with type {either(ADAPTER_METHODS)}",
        remedy=f"Remove it, or set type to {either(ADAPTER_METHODS)}.",
    )
    yield Rule(
        path="spec.method.freeze",
        applies_if=IsSet("method.freeze") & ADAPTS,
        message=f"is supported only with type {either(WEIGHT_METHODS)}: {' and '.join(ADAPTER_METHODS)} do not train "
        "the base model's weights",
        remedy=f"Remove it, or set type to {either(WEIGHT_METHODS)}.",
    )
    yield _runs_under(ALL_STAGES, IsSet("compute.zeroStage"), "", "")
    for method, method_facts in METHODS.items():
        if method_facts.why_not_zero:
            yield _runs_under(
                method_facts.zero_stages,
                IsSet("compute.zeroStage") & Compare(METHOD, "==", method.value),
                f" with method {method.value}: {method_facts.why_not_zero}",
                ", or set spec.method.type to LoRA",
            )


def _on_placement() -> Iterator[Rule]:
    """The rules on where the training state is held, and in how many bits."""
    stage, in_8_bits = Value("compute.zeroStage"), OneOf(Value("hyperparameters.optim"), OPTIMIZERS_8_BIT)
    offloads = {"offloadOptimizer": (2, 3), "offloadParam": (3,)}
    for name, stages in offloads.items():
        path, needed = f"compute.{name}", either(stages)
        on = Compare(Value(path), "==", True)
        yield Rule(
            path=f"spec.{path}",
            applies_if=on & Compare(GPUS, "==", 0),
            message="can be true only on GPUs: on the CPU there is no other memory",
            remedy="Remove it, or set gpusPerNode.",
        )
        yield Rule(
            path=f"spec.{path}",
            applies_if=on & IsSet("compute.zeroStage") & ~OneOf(stage, stages),
            message=f"can be true only with zeroStage {needed}",
            remedy=f"Remove it, or set zeroStage to {needed}.",
        )
        yield Rule(
            path="spec.hyperparameters.optim",
            applies_if=in_8_bits & on,
            message=f"cannot be {either(OPTIMIZERS_8_BIT)} with compute.{name}",
            remedy="Remove one of them.",
        )
        if without := tuple(
            method.value for method, facts in METHODS.items() if not set(stages) & {*facts.zero_stages}
        ):
            yield Rule(
                path=f"spec.{path}",
                applies_if=on & OneOf(METHOD, without),
                message=f"cannot be true with method {either(without)}, which does not support zeroStage {needed}",
                remedy="Remove it, or set spec.method.type to LoRA.",
            )
    yield Rule(
        path="spec.budget",
        applies_if=IsSet("budget") & ~IsSet("budget.gpuHours") & ~IsSet("budget.cost"),
        message="must have a limit",
        remedy="Set gpuHours or cost, or remove it.",
        spec_only=True,
    )
    yield Rule(
        path="spec.budget",
        applies_if=IsSet("budget") & Compare(GPUS, "==", 0),
        message="is about GPUs, but compute.gpusPerNode is 0",
        remedy="Remove it; activeDeadlineSeconds limits the time of a training attempt.",
        spec_only=True,
    )
    yield Rule(
        path="spec.compute.precision",
        applies_if=IsSet("compute.precision") & Compare(GPUS, "==", 0),
        message="can be set only on GPUs: on the CPU, training computes in float32",
        remedy="Remove it, or set gpusPerNode.",
    )
    yield Rule(
        path="spec.hyperparameters.optim",
        applies_if=in_8_bits & Compare(GPUS, "==", 0),
        message=f"can be {either(OPTIMIZERS_8_BIT)} only on GPUs",
        remedy="Remove it, or set compute.gpusPerNode.",
    )
    yield Rule(
        path="spec.hyperparameters.optim",
        applies_if=in_8_bits & OneOf(stage, (2, 3)),
        message=f"can be {either(OPTIMIZERS_8_BIT)} only with zeroStage 0",
        remedy="Remove one of them.",
    )


def _on_generation() -> Iterator[Rule]:
    """The rules on a vLLM server that generates the answers."""
    gpus = Value("generation.gpusPerNode")
    served = Compare(Value("generation.engine"), "==", GenerationEngine.VLLM.value)
    yield Rule(
        path="spec.generation.engine",
        applies_if=served & ~ADAPTS,
        message=f"cannot be VLLM with method {either(WEIGHT_METHODS)}: the server gets the adapter of each step, not "
        "the whole model",
        remedy=f"Set it to Auto or Trainer, or set spec.method.type to {either(ADAPTER_METHODS)}.",
    )
    yield Rule(
        path="spec.generation.engine",
        applies_if=served & Compare(Value("compute.zeroStage"), "==", 3),
        message="cannot be VLLM with compute.zeroStage 3, which spreads the adapter over the processes",
        remedy="Set it to Auto or Trainer, or set zeroStage to 0 or 2.",
    )
    yield Rule(
        path="spec.generation.gpusPerNode",
        applies_if=Compare(gpus, "!=", 0) & Compare(GPUS, "==", 0),
        message="must be 0 if compute.gpusPerNode is 0: a run on the CPU generates on the CPU",
        remedy="Remove it, or set compute.gpusPerNode.",
    )
    yield Rule(
        path="spec.generation.gpusPerNode",
        applies_if=Compare(gpus, "==", 0) & Compare(GPUS, "!=", 0),
        message="must be at least 1 if compute.gpusPerNode is not 0: on the CPU a server would be slower than training",
        remedy="Remove it to use 1.",
    )


def _runs_under(stages: tuple[int, ...], applies_if: Expression, why: str, alternative: str) -> Rule:
    """The rule that the ZeRO stage is one of some."""
    return Rule(
        path="spec.compute.zeroStage",
        applies_if=applies_if & ~OneOf(Value("compute.zeroStage"), stages),
        message=f"must be {either(stages)}{why}",
        remedy=f"Use {either(stages)}{alternative}.",
    )


def _on_data(objectives: Objectives) -> Iterator[Rule]:
    without = _names(objectives, lambda facts: not facts.data.has_conversations)
    for path in ("dataset.chatTemplate", "dataset.systemPrompt", "dataset.roles"):
        yield Rule(
            path=f"spec.{path}",
            applies_if=IsSet(path) & OneOf(OBJECTIVE, without),
            message=f"is not supported with objective {either(without)}, whose rows are no conversations",
            remedy="Remove it.",
        )
    yield exactly_one("spec.dataset.chatTemplate", "name", "configMap")
    yield Rule(
        path="spec.dataset.trainOn",
        applies_if=Compare(Value("dataset.format"), "==", DataFormat.TEXT.value)
        & OneOf(Value("dataset.trainOn"), (TrainOn.ASSISTANT.value, TrainOn.COMPLETION.value)),
        message="cannot be Assistant or Completion with format Text: raw text has no answers",
        remedy="Remove it, or set it to All.",
    )
    for objective, facts in objectives.items():
        formats = tuple(format.value for format in facts.data.formats)
        yield Rule(
            path="spec.dataset.format",
            applies_if=Compare(OBJECTIVE, "==", objective.value)
            & IsSet("dataset.format")
            & ~OneOf(Value("dataset.format"), (DataFormat.AUTO.value, *formats)),
            message=f"is not supported with objective {objective.value}, which reads rows of format {either(formats)}",
            remedy=f"Use {'one of these' if len(formats) > 1 else formats[0]} or Auto, or another objective.",
        )
    test, validation = Value("dataset.test.fraction"), Value("dataset.validation.fraction")
    yield Rule(
        path="spec.dataset.test.fraction",
        applies_if=Compare(test, "<=", 0.0),
        message="must be above 0: base and tuned model are compared on the test rows",
        remedy="Set it above 0, or set claim, configMap, uri or image to use separate test rows.",
    )
    yield Rule(
        path="spec.dataset.validation.fraction",
        applies_if=Compare(Sum(validation, test), ">=", 1.0),
        message="leaves no rows to train on: validation.fraction and test.fraction add up to 1 or more",
        remedy="Lower one of them so that the sum is below 1.",
    )


_ON_REWARDS = (
    Rule(
        path="spec.reward",
        scope="spec.reward",
        applies_if=~(IsSet("model") | IsSet("functions")),
        message="must have model, functions or both",
        remedy="Set at least one of them.",
    ),
    exactly_one(FUNCTIONS, "name", "configMap"),
    Rule(
        path=f"{FUNCTIONS}.pattern",
        scope=FUNCTIONS,
        applies_if=OneOf(Value("name"), MATCHING) & ~IsSet("pattern"),
        message=f"is required with name {either(MATCHING)}",
        remedy="Set the regular expression to search for in answers.",
    ),
    Rule(
        path=f"{FUNCTIONS}.pattern",
        scope=FUNCTIONS,
        applies_if=IsSet("pattern") & ~OneOf(Value("name"), MATCHING),
        message=f"is supported only with name {either(MATCHING)}",
        remedy="Remove it.",
        spec_only=True,
    ),
    Rule(
        path=f"{FUNCTIONS}.function",
        scope=FUNCTIONS,
        applies_if=IsSet("function") & ~IsSet("configMap"),
        message="is supported only with configMap",
        remedy="Remove it.",
        spec_only=True,
    ),
)

_ON_RESOURCES = (
    Rule(
        path="spec.hyperparameters.maxSteps",
        applies_if=IsSet("hyperparameters.epochs") & IsSet("hyperparameters.maxSteps"),
        message="cannot be set together with epochs",
        remedy="Remove one of them.",
    ),
    Rule(
        path="spec.checkpoint.everyMinutes",
        applies_if=IsSet("checkpoint.everySteps") & IsSet("checkpoint.everyMinutes"),
        message="cannot be set together with everySteps",
        remedy="Remove one of them.",
    ),
    Rule(
        path="spec.checkpoint.continueFrom",
        applies_if=IsSet("checkpoint.continueFrom") & ~IsSet("workspace.claimName"),
        message="needs workspace.claimName: the checkpoints of a job are on its workspace",
        remedy="Set workspace.claimName to the claim that the earlier job used, or remove it.",
        spec_only=True,
    ),
    Rule(
        path="spec.compute.processesPerNode",
        applies_if=Compare(Value("compute.processesPerNode"), "!=", GPUS) & Compare(GPUS, "!=", 0),
        message="must equal gpusPerNode, which is 1 by default",
        remedy="Remove it, or set gpusPerNode to 0 to train on the CPU.",
        spec_only=True,
    ),
    device("compute.gpuResource"),
    Rule(
        path="spec.workspace.claimName",
        applies_if=IsSet("workspace.claimName")
        & (IsSet("workspace.size") | IsSet("workspace.storageClassName") | IsSet("workspace.accessModes")),
        message="cannot be set together with size, storageClassName or accessModes: the claim exists already",
        remedy="Remove size, storageClassName and accessModes, or remove claimName.",
        spec_only=True,
    ),
    Rule(
        path="spec.workspace.sizeLimit",
        applies_if=IsSet("workspace.sizeLimit") & ~IsSet("workspace.claimName"),
        message="needs workspace.claimName: a claim that is created for one job is not shared",
        remedy="Set workspace.claimName to a claim that several jobs use, or remove sizeLimit.",
        spec_only=True,
    ),
    Rule(
        path="spec.output.merge",
        applies_if=Compare(Value("output.merge"), "==", "Never") & IsSet("model.jobRef") & ADAPTS,
        message="cannot be Never with model.jobRef: the adapter would lose its base when that job is deleted",
        remedy="Use Auto, or set model.claim instead of model.jobRef.",
        spec_only=True,
    ),
    *(
        Rule(
            path="spec.output.merge",
            applies_if=Compare(Value("output.merge"), "==", "Never") & IsSet(f"model.{field}") & ADAPTS,
            message=f"cannot be Never with model.{field}: a server of the adapter would have no base model on a claim",
            remedy=f"Use Auto, or copy the model to a claim and set model.claim instead of model.{field}.",
            spec_only=True,
        )
        for field in ("uri", "image")
    ),
    *(only_with("spec.output", field, "uri") for field in ("s3", "credentialsSecretRef", "publishRequest")),
    Rule(
        path="spec.output.s3",
        scope="spec.output",
        applies_if=IsSet("s3") & IsSet("uri") & ~Matches(Value("uri"), "s3://.*"),
        message="is supported only with a uri that begins with s3://",
        remedy="Remove it.",
        spec_only=True,
    ),
)


def _not_itself(path: str) -> Rule:
    """The rule that a job does not use its own result."""
    return Rule(
        path=path,
        scope="",
        applies_if=Compare(Value(path), "==", Value("metadata.name")),
        message="names this job: a FineTuneJob cannot wait for itself",
        remedy="Name the job that produces the model.",
        spec_only=True,
    )


RULES = rules()
