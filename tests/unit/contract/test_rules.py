"""The table of rules: each names a field and a remedy, refuses something, and means the same of spec and RunConfig."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from hone.api import finetunejob, modeldeployment
from hone.api.crds import crds, frozen_rules
from hone.api.finetunejob import Compute, FineTuneJobSpec
from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.rules import Refusal, Rule, places, refusals
from hone.contract.rules import finetunejob as rules
from hone.contract.rules import modeldeployment as modeldeployment_rules
from hone.contract.rules.run_config import refusals_of
from hone.contract.rules.vllm import closed_server, known_argument
from hone.contract.settings import Method
from hone.core.finetunejob.resources.runconfig import run_config
from hone.core.finetunejob.run import Run
from hone.core.settings import Settings
from tests.random_specs import RULES, SCHEMAS, change_for, examples, resources

ALL = [(kind, rule) for kind, table in RULES.items() for rule in table]
IDS = [f"{number}-{rule.path}" for number, (_, rule) in enumerate(ALL)]


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema, and every schema in it."""
    yield schema
    for node in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(node, dict):
            yield from nodes(node)


def aimed(kind: str, rule: Rule) -> Iterator[dict[str, Any]]:
    """2000 random resources in which the fields that a rule reads are drawn."""
    random, bases = Random(1), [example for example in examples() if example["kind"] == kind]
    for _ in range(2000):
        resource = copy.deepcopy(random.choice(bases))
        change_for(random, resource, rule)
        yield resource


@pytest.mark.parametrize(("kind", "rule"), ALL, ids=IDS)
def test_every_rule_names_a_field_and_a_remedy(kind: str, rule: Rule) -> None:
    schema = SCHEMAS[kind]
    for part in rule.path.split("."):
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    assert rule.path.startswith(rule.scope)
    assert rule.message and rule.message[-1] != "." and not rule.message[0].isupper()
    assert rule.remedy.endswith(".") and rule.remedy[0].isupper()


@pytest.mark.parametrize(("kind", "rule"), ALL, ids=IDS)
def test_every_rule_refuses_something(kind: str, rule: Rule) -> None:
    refused = next((refusal for resource in aimed(kind, rule) for refusal in rule.refusals(resource)), None)
    assert refused, "no random spec breaks it"
    assert refused.field.startswith("spec.")
    assert (refused.message, refused.remedy) == (rule.message, rule.remedy)


def test_examples_are_refused_by_no_rule() -> None:
    assert [refusals(RULES[example["kind"]], example) for example in examples()] == [[]] * len(examples())


@pytest.mark.parametrize("kind", SCHEMAS)
def test_no_rule_is_written_in_cel_outside_of_the_table(kind: str) -> None:
    generated = [rule.cel() for rule in RULES[kind]]
    if kind == finetunejob.KIND:
        generated += frozen_rules(FineTuneJobSpec, finetunejob.MUTABLE_AFTER_START, finetunejob.FROZEN_MESSAGE)
    written = [entry for node in nodes(SCHEMAS[kind]) for entry in node.get("x-kubernetes-validations", [])]
    assert sorted(written, key=str) == sorted(generated, key=str)


def test_every_field_of_one_type_has_its_rules() -> None:
    schema = finetunejob.FineTuneJob.model_json_schema(by_alias=True)
    by_type = {
        name: set(_places(schema, name))
        for name in (
            "ModelSource",
            "ClaimPath",
            "DataSource",
            "HeldOut",
            "RewardFunction",
            "StepEnvVar",
            "JobPodSettings",
        )
    }
    assert by_type == {
        "ModelSource": set(places.MODEL_SOURCES),
        "ClaimPath": set(places.CLAIM_PATHS),
        "DataSource": set(places.DATA_SOURCES),
        "HeldOut": set(places.HELD_OUT),
        "RewardFunction": {rules.FUNCTIONS},
        "StepEnvVar": set(rules.VARIABLES),
        "JobPodSettings": set(rules.POD_SETTINGS),
    }
    schema = modeldeployment.ModelDeployment.model_json_schema(by_alias=True)
    assert set(_places(schema, "EnvVar")) == set(modeldeployment_rules.VARIABLES)
    assert set(_places(schema, "PodSettings")) == set(modeldeployment_rules.POD_SETTINGS)


def _places(schema: dict[str, Any], name: str) -> Iterator[str]:
    """The paths of the fields of the spec that are of a type, by pydantic's JSON schema."""

    def walk(node: dict[str, Any], path: str) -> Iterator[str]:
        for option in [node, *node.get("anyOf", [])]:
            reference = option.get("$ref", "").removeprefix("#/$defs/")
            if reference == name:
                yield path
            for key, below in schema["$defs"].get(reference, {}).get("properties", {}).items():
                yield from walk(below, f"{path}.{key}")
            if "items" in option:
                yield from walk(option["items"], f"{path}[]")

    return walk(schema["properties"]["spec"], "spec")


def test_defaults_in_rules_are_those_of_the_types() -> None:
    values = {value for rule in rules.RULES for value in rule.applies_if.values() if value.default is not None}
    assert {value.path: value.default for value in values} == {
        "objective": FineTuneJobSpec.model_fields["objective"].default,
        "method.type": Method.model_fields["type"].default,
        "compute.gpusPerNode": Compute.model_fields["gpus_per_node"].default,
    }


@pytest.mark.parametrize(
    ("resource", "is_refused"),
    {
        "nvidia.com/gpu": False, "amd.com/gpu": False, "nvidia.com/mig-1g.5gb": False, "habana.ai/gaudi": False,
        "memory": True, "cpu": True, "ephemeral-storage": True, "hugepages-2Mi": True, "pods": True, "gpu": True,
        "attachable-volumes-aws-ebs": True, "requests.nvidia.com/gpu": True, "kubernetes.io/batch-cpu": True,
        "alpha.kubernetes.io/nvidia-gpu": True, "nvidia.com/": True, "a/b/c": True, "Nvidia.com/gpu": True,
        f"nvidia.com/{'g' * 64}": True, "nvidia.com/gpu\n": True, "nvidia.com/gp\u00fc": True,
    }.items(),
)  # fmt: skip
def test_a_gpu_resource_is_a_device_of_a_domain(resource: str, is_refused: bool) -> None:
    for rule, spec in (
        (places.device("compute.gpuResource"), {"compute": {"gpuResource": resource}}),
        (places.device("gpuResource"), {"gpuResource": resource}),
    ):
        assert bool(list(rule.refusals({"spec": spec}))) is is_refused


@pytest.mark.parametrize(("kind", "place"), [("FineTuneJob", "compute.pod"), ("ModelDeployment", "pod")])
def test_priority_classes_of_the_cluster_are_refused_by_field(kind: str, place: str) -> None:
    example = copy.deepcopy(next(example for example in examples() if example["kind"] == kind))
    node = example["spec"]
    for part in place.split("."):
        node = node.setdefault(part, {})
    node["priorityClassName"] = "systems"
    assert refusals(RULES[kind], example) == []
    node["priorityClassName"] = "system-node-critical"
    assert [refusal.field for refusal in refusals(RULES[kind], example)] == [f"spec.{place}.priorityClassName"]


ALLOWED = (
    *(
        "--seed=1",
        "--seed",
        "-1",
        "4096",
        "--max_model_len=4k",
        "--no-enable-prefix-caching",
        "--generation-config=vllm",
    ),
    *("--limit-mm-per-prompt.image=2", '--override-generation-config={"temperature": 0}', "", "a=--trust-remote-code"),
)
NOT_ALLOWED = (
    # They run code that they or the model's files name,
    *("--trust-remote-code", "--trust_remote_code", "--trust-r", "--trust-remote-code=true", "--no-trust-remote-code"),
    *(
        "--tokenizer-mode=custom",
        "--logits-processors=a.b:C",
        "--middleware=a.b",
        "--worker-cls=a.B",
        "--scheduler-cls",
    ),
    *("--worker-extension-cls", "--io-processor-plugin", "--tool-parser-plugin=/tmp/a.py", "--reasoning-parser-plugin"),
    *(
        "--compilation-config.backend=a.b",
        "-cc.backend=a.b",
        "-O3",
        "--hf-overrides",
        "--load-format=pt",
        "--config=/a.yml",
    ),
    *("--kv-transfer-config.kv_connector_module_path=a", "--speculative-config={}", "--spec-method=custom_class"),
    *("--distributed-executor-backend=a.B", "--additional-config", "--model-impl=terratorch", "--log-config-file=/a"),
    # open files,
    *(
        "--chat-template=/proc/self/environ",
        "--allowed-local-media-path=/",
        "--lora-modules=a=/tmp",
        "--hf-config-path",
    ),
    *("--model=/tmp", "--tokenizer=/tmp", "--generation-config=/tmp", "--download-dir=/tmp", "--ssl-keyfile=/a"),
    # admit others, or set what Hone sets.
    *(
        "--host=::",
        "--port=1",
        "--uds=/tmp/a",
        "--trust-request-chat-template",
        "--enable-prompt-embeds",
        "--api-key=a",
    ),
    *("--served-model-name=a", "--shutdown-timeout=1", "--tool-server=demo", "--headless", "--grpc"),
    # Neither newlines nor abbreviations get around it.
    *("--chat-template=a\nb", "--mod=/tmp", "--no---no-seed", "--", "-", "---seed", "-q", "--seed\n", "--ſeed"),
)


@pytest.mark.parametrize("argument", ALLOWED)
def test_an_argument_of_vllm_that_is_listed_is_allowed(argument: str) -> None:
    assert list(known_argument("spec.runtime.args[]").refusals({"spec": {"runtime": {"args": [argument]}}})) == []


@pytest.mark.parametrize("argument", NOT_ALLOWED)
def test_no_other_argument_of_vllm_is_allowed(argument: str) -> None:
    rule = known_argument("spec.runtime.args[]")
    refused = rule.refusals({"spec": {"runtime": {"args": ["--seed=1", argument]}}})
    assert [refusal.field for refusal in refused] == ["spec.runtime.args[1]"]


@pytest.mark.parametrize(
    ("name", "is_refused"),
    {
        "VLLM_API_KEY": False, "VLLM_LOGGING_LEVEL": False, "VLLM_CPU_KVCACHE_SPACE": False, "VLLM_CACHE_ROOT": False,
        "VLLM_SERVER_DEV_MODE": True, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": True, "VLLM_LOGGING_CONFIG_PATH": True,
        "VLLM_ALLOW_INSECURE_SERIALIZATION": True, "VLLM_LORA_RESOLVER_CACHE_DIR": True, "VLLM_NCCL_SO_PATH": True,
    }.items(),
)  # fmt: skip
def test_a_variable_that_opens_a_server_is_refused(name: str, is_refused: bool) -> None:
    rule = closed_server("spec.runtime.env[]")
    assert bool(list(rule.refusals({"spec": {"runtime": {"env": [{"name": name, "value": "1"}]}}}))) is is_refused


@pytest.mark.slow
def test_a_run_config_is_refused_as_its_spec_is() -> None:
    compared = [compare(resource) for resource in resources(seed=7, count=3200) if resource["kind"] == finetunejob.KIND]
    assert compared.count([]) > 300, "hardly any spec is right"


@pytest.mark.parametrize("rule", [rule for rule in rules.RULES if not rule.spec_only], ids=lambda rule: rule.path)
def test_a_run_config_can_break_a_rule_that_is_not_on_specs_only(rule: Rule) -> None:
    refused = (compare(resource) or [] for resource in aimed(finetunejob.KIND, rule))
    assert any(rule.message == message for refusals in refused for _, message, _ in refusals)


def compare(resource: dict[str, Any]) -> list[Refusal] | None:
    """What is refused of a spec's RunConfig, which is what is refused of the spec; None where the spec makes none."""
    metadata = {**resource["metadata"], "namespace": "team-a", "uid": "1", "resourceVersion": "1", "generation": 1}
    if refusals([rule for rule in rules.RULES if rule.spec_only], resource):
        return None
    try:
        config = run_config(Run({**resource, "metadata": metadata}, Settings()))
    except ValidationError:
        return None
    refused = refusals_of(config)
    assert refused == refusals([rule for rule in rules.RULES if not rule.spec_only], resource), resource
    return refused


def test_a_method_that_an_objective_does_not_go_with_is_refused() -> None:
    facts = OBJECTIVES[Objective.KTO]
    rates = {method: rate for method, rate in facts.defaults.learning_rate.items() if method is not MethodType.QLORA}
    table = rules.rules(
        {**OBJECTIVES, Objective.KTO: replace(facts, defaults=replace(facts.defaults, learning_rate=rates))}
    )
    (example,) = [one for one in examples() if one["spec"].get("objective") == "KTO"]
    qlora = {**example, "spec": {**example["spec"], "method": {"type": "QLoRA"}}}
    assert refusals(rules.RULES, qlora) == []
    others = rules.either([method.value for method in rates])
    assert refusals(table, qlora) == [("spec.method.type", "cannot be QLoRA with objective KTO", f"Use {others}.")]


def test_a_field_that_does_not_exist_is_an_error_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", (replace(rules.RULES[0], path="spec.method.lara"),))
    with pytest.raises(KeyError, match="lara"):
        crds()
