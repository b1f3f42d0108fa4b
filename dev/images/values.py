"""The chart's values that make it take the images that were built here, for `helm upgrade --values`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dev import uv

KEYS = {"hone-operator": "operator", "hone-trainer": "trainer", "hone-vllm-cpu": "serverCpu"}
"""Images by their key in the chart's values. vLLM for GPUs is not built here: the chart takes it from its makers."""


def values(references: Mapping[str, str]) -> dict[str, Any]:
    """The chart's values for these references, by name; an image without one keeps the chart's default."""
    chosen = {}
    for name, key in KEYS.items():
        if name in references:
            repository, _, tag = references[name].rpartition(":")
            registry, _, path = repository.partition("/")
            chosen[key] = {"registry": registry, "repository": path, "tag": tag, "digest": ""}
    return {"image": chosen}


def file() -> Path:
    """Where `write` puts the values."""
    return uv.ROOT / "build" / "image-values.json"


def write(references: Mapping[str, str]) -> Path:
    """Write the values to a file, as JSON, which helm reads as YAML; returns its path."""
    path = file()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values(references), indent=2) + "\n")
    return path


def command(path: Path) -> str:
    """What installs or upgrades Hone with these values, in the repository's root."""
    options = f"--namespace hone-system --create-namespace --values {path.relative_to(uv.ROOT)}"
    return f"helm upgrade --install hone charts/hone {options}"
