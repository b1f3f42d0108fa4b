"""What the tests of the documents share: manifests in them, and the CRDs' schemas with unknown fields forbidden."""

import functools
import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft4Validator

from dev.schemas import strict
from hone.api import crds, finetunejob, modeldeployment
from hone.contract.base import Model

ROOT = Path(__file__).resolve().parents[2]
TYPES: dict[str, type[Model]] = {
    finetunejob.KIND: finetunejob.FineTuneJob,
    modeldeployment.KIND: modeldeployment.ModelDeployment,
}
Manifest = dict[str, Any]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a Markdown text in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@functools.cache
def schema_of(kind: str) -> dict[str, Any]:
    """The JSON schema of one of our kinds, with every object closed."""
    for crd in crds.crds().values():
        if crd["spec"]["names"]["kind"] == kind:
            schema: dict[str, Any] = strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
            return schema
    raise KeyError(kind)


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with a manifest of one of our kinds, by field; empty when nothing is."""
    if manifest.get("kind") not in TYPES:
        return [f"kind: {manifest.get('kind')!r} is none of {sorted(TYPES)}"]
    errors = Draft4Validator(schema_of(manifest["kind"])).iter_errors(manifest)
    messages = [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
    if not messages:
        TYPES[manifest["kind"]].from_dict(manifest)
    return messages


def field_exists(kind: str, path: str) -> bool:
    """Whether the CRD has that field, such as `spec.compute.nodes`."""
    node = schema_of(kind)
    for key in path.split("."):
        node = node.get("items", node)
        if "properties" not in node:
            # A free-form object: nothing is known of its keys.
            return node.get("type") == "object" or "additionalProperties" in node
        if key not in node["properties"]:
            return False
        node = node["properties"][key]
    return True


def documents(path: Path) -> list[Manifest]:
    """All documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
