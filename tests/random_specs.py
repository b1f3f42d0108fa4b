"""Random resources that are nearly right: the examples, with a few fields drawn from the CRD's schema or removed."""

import copy
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from hone.api.crds import crds
from hone.contract.rules import Rule
from hone.contract.rules import finetunejob as finetunejob_rules
from hone.contract.rules import modeldeployment as modeldeployment_rules

Resource = dict[str, Any]
Schema = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
NAME = "sft"
RULES: dict[str, Sequence[Rule]] = {
    "FineTuneJob": finetunejob_rules.RULES,
    "ModelDeployment": modeldeployment_rules.RULES,
}
SCHEMAS: dict[str, Schema] = {
    crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in crds().values()
}
TEXTS = (
    NAME,
    "a",
    "rows.jsonl",
    "a/../b",
    "loss",
    "hf://a/b",
    "s3://tuned/b",
    "oci://registry.local/b:v1",
    "https://store.local:9000",
    "http://judge.team.svc:8000/v1",
    "http://judge.local/v1",
    "hf://datasets/a/b",
    "s3://a/b",
    "https://a/b",
    "https://a",
    "0" * 64,
    "sha256:" + "0" * 64,
    "registry.local/a:v1",
    "registry.local/a@sha256:" + "0" * 64,
    "../b",
    "..",
    "a..b",
    "x1",
    "RANK",
    "HONE_A",
    "Exists",
    "NoSchedule",
    "nvidia.com/gpu",
    "A_b",
    "system-node-critical",
    "memory",
    "--max_model_len=64",
    "--no-enable-prefix-caching",
    "--trust-remote-code",
    "-tp",
    "-1",
    "VLLM_PLUGINS",
    "VLLM_NCCL_SO_PATH",
)
QUANTITIES = ("1Gi", "500m", 4)
INVALID = 0.04
"""Share of the values that the schema refuses."""


@functools.cache
def examples() -> list[Resource]:
    """The manifests of both kinds in examples/, all under one name; to be copied before a change."""
    paths = sorted((ROOT / "examples").glob("*.yaml"))
    documents = [document for path in paths for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    return [
        {key: document[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": NAME}}
        for document in documents
        if document["kind"] in RULES
    ]


def resources(seed: int, count: int) -> Iterator[Resource]:
    """As many random resources, the same for the same seed."""
    random, bases = Random(seed), examples()
    for _ in range(count):
        resource = copy.deepcopy(random.choice(bases))
        rules = RULES[resource["kind"]]
        for _ in range(random.randint(1, 2)):
            if random.random() < 0.6:
                change_for(random, resource, random.choice(rules))
            else:
                change(random, resource, random.choice(FIELDS[resource["kind"]]))
        yield resource


def change_for(random: Random, resource: Resource, rule: Rule) -> None:
    """Draw one or all of the fields that a rule reads."""
    paths = sorted({f"{rule.scope}.{value.path}".strip(".") for value in rule.applies_if.values()} - {"metadata.name"})
    for path in paths if random.random() < 0.7 else [random.choice(paths)]:
        change(random, resource, path)


def change(random: Random, resource: Resource, path: str) -> None:
    """Draw a field's value, or one time in five remove it. `[]` stands for an item of a list; at the end, for all."""
    schema, node = SCHEMAS[resource["kind"]], resource
    *parents, last = path.split(".")
    for part in parents:
        key = part.removesuffix("[]")
        schema = schema["properties"][key]
        if key not in node:
            node[key] = drawn(random, schema)
        node = node[key]
        if part.endswith("[]"):
            schema, node = schema["items"], random.choice(node)
    last = last.removesuffix("[]")
    if random.random() < 0.2:
        node.pop(last, None)
    else:
        node[last] = drawn(random, schema["properties"][last])


def drawn(random: Random, schema: Schema) -> Any:
    """A value of the schema."""
    if "enum" in schema:
        other = 1 if schema["type"] == "integer" else "Other"
        return other if random.random() < INVALID else random.choice(schema["enum"])
    if "x-kubernetes-int-or-string" in schema:
        return random.choice(QUANTITIES)
    return _DRAWN[schema["type"]](random, schema)


def _object(random: Random, schema: Schema) -> Resource:
    if "additionalProperties" in schema:
        key = "a b" if random.random() < INVALID else "a"
        return {key: drawn(random, schema["additionalProperties"])}
    required, properties = schema.get("required", []), schema.get("properties", {})
    # Of many fields that exclude each other, a few: more of them would never be a right object.
    share = min(0.3, 1.5 / max(1, len(properties)))
    chosen = {key: node for key, node in properties.items() if key in required or random.random() < share}
    return {key: drawn(random, node) for key, node in chosen.items()}


def _array(random: Random, schema: Schema) -> list[Any]:
    return [drawn(random, schema["items"]) for _ in range(random.randint(1, min(2, schema.get("maxItems", 2))))]


def _string(random: Random, schema: Schema) -> str:
    if random.random() < INVALID:
        return random.choice(("", "/a b"))
    pattern, longest = schema.get("pattern", ""), schema.get("maxLength", 64)
    return random.choice([text for text in TEXTS if re.search(pattern, text) and len(text) <= longest])


def _number(random: Random, schema: Schema) -> int | float:
    least, most = schema.get("minimum", 0), schema.get("maximum", 1000)
    if random.random() < INVALID:
        return random.choice((least - 1, most + 1))
    if schema["type"] == "integer":
        return random.choice((least, most, random.randint(least, min(most, least + 4))))
    inner = round(random.uniform(least, most), 3)
    bounds = [
        *([least] if not schema.get("exclusiveMinimum") else []),
        *([most] if not schema.get("exclusiveMaximum") else []),
    ]
    return random.choice((inner, *bounds))


_DRAWN = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": lambda random, schema: random.random() < 0.5,
}


def _fields(schema: Schema, path: str) -> Iterator[str]:
    for name, node in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from _fields(node, f"{path}.{name}")
        yield from _fields(node.get("items", {}), f"{path}.{name}[]")


FIELDS = {kind: list(_fields(schema["properties"]["spec"], "spec")) for kind, schema in SCHEMAS.items()}
"""Every field of the spec by kind."""
