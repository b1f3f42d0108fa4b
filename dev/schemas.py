"""JSON schemas of Kubernetes' own kinds for kubeconform, generated from the Kubernetes sources without network access.

`python3 -m dev.schemas` prints the `-schema-location` option for kubeconform. The sources are the Go module from which
the local cluster is built; the generated schemas are cached.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from dev.cluster import build
from dev.uv import cache_dir, short_hash

Schema = dict[str, Any]

PREFIX = "#/definitions/"
# The OpenAPI document calls these strings; the API server takes numbers too.
NUMBERS_TOO = ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity")
FILE_NAME = "{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json"


def strict(node: Any) -> Any:
    """The schema with every object closed that names its fields, so that a misspelled field is an error."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: strict(value) for key, value in node.items()}
    if isinstance(closed.get("properties"), dict) and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


def references(node: Any) -> set[str]:
    """Names of the definitions that the schema refers to directly."""
    if isinstance(node, list):
        return {name for item in node for name in references(item)}
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"].removeprefix(PREFIX)} if isinstance(node.get("$ref"), str) else set()
    return own.union(*(references(value) for value in node.values()))


def standalone(name: str, definitions: dict[str, Schema]) -> Schema:
    """One definition as a schema of its own, with all that it refers to."""
    needed: set[str] = set()
    waiting = {name}
    while waiting:
        current = waiting.pop()
        needed.add(current)
        waiting |= references(definitions[current]) - needed
    return {"$ref": PREFIX + name, "definitions": {key: definitions[key] for key in sorted(needed)}}


def file_name(group: str, version: str, kind: str) -> str:
    """The name that kubeconform looks for under `FILE_NAME`; it takes the version for the group where there is none."""
    return f"{kind.lower()}-{group or version}-{version}.json"


def by_file(swagger: Schema) -> dict[str, Schema]:
    """Schemas of all kinds of an OpenAPI v2 document of Kubernetes, by file name."""
    definitions = {name: strict(schema) for name, schema in swagger["definitions"].items()}
    for name in NUMBERS_TOO:
        definitions[name] = {"type": ["string", "number"]}
    return {
        file_name(kind["group"], kind["version"], kind["kind"]): standalone(name, definitions)
        for name, schema in swagger["definitions"].items()
        for kind in schema.get("x-kubernetes-group-version-kind", [])
        # DeleteOptions and the like belong to every group; no manifest has their kind.
        if len(schema["x-kubernetes-group-version-kind"]) == 1
    }


def _swagger() -> Path:
    """The OpenAPI document in the Go module, which is downloaded where it is not there."""
    module = f"k8s.io/kubernetes@{build.KUBERNETES_VERSION}"
    command = [build.go(), "mod", "download", "-json", module]
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod"}
    with tempfile.TemporaryDirectory() as empty:
        answer = subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True, text=True)
    return Path(json.loads(answer.stdout)["Dir"]) / "api/openapi-spec/swagger.json"


def ensure() -> str:
    """Make the schemas where they are missing; returns the location for kubeconform."""
    key = short_hash(Path(__file__).read_bytes(), build.KUBERNETES_VERSION.encode())
    target = cache_dir() / f"schemas-{key}"
    if not target.is_dir():
        cache_dir().mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".schemas-", dir=cache_dir()))
        try:
            for name, schema in by_file(json.loads(_swagger().read_text())).items():
                (scratch / name).write_text(json.dumps(schema))
            if not target.is_dir():
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return f"{target}/{FILE_NAME}"


if __name__ == "__main__":
    print(ensure())
