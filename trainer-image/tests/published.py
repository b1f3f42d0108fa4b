"""A published artifact as bytes by name: what the publish step leaves at a destination."""

import hashlib
import json
from typing import Any

from hone.contract.report import SUMS_FILE

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
LORA = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
WEIGHTS = bytes(range(256)) * 400


def provenance(base_digest: str | None = None, base_files: dict[str, str] | None = None) -> bytes:
    """A provenance with the digest of a base, and those of its files."""
    base: dict[str, Any] = {"name": "base", "annotations": {"model": "tiny"}}
    if base_digest:
        base["digest"] = {"hone.dev/sha256": base_digest.removeprefix("sha256:")}
    files = [{"name": f"base/{name}", "digest": {"sha256": each}} for name, each in (base_files or {}).items()]
    return json.dumps({"predicate": {"buildDefinition": {"resolvedDependencies": [base, *files]}}}).encode()


def with_sums(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with their SHA256SUMS."""
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return {**files, SUMS_FILE: lines.encode()}


def model(**files: bytes) -> dict[str, bytes]:
    """A whole model, with further files or others."""
    own = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": WEIGHTS,
        "README.md": b"card",
        "additional_chat_templates/tools.jinja": b"{{ messages }}",
        "provenance.json": provenance(),
    }
    return with_sums({**own, **files})


def adapter(base_digest: str | None, base_files: dict[str, str] | None = None, **settings: Any) -> dict[str, bytes]:
    """An adapter of a base with this digest."""
    return with_sums(
        {
            "adapter_config.json": json.dumps({**LORA, **settings}).encode(),
            "adapter_model.safetensors": WEIGHTS[:512],
            "tokenizer.json": b"{}",
            "provenance.json": provenance(base_digest, base_files),
        }
    )


def digest(files: dict[str, bytes]) -> str:
    """The digest of the artifact."""
    return "sha256:" + hashlib.sha256(files[SUMS_FILE]).hexdigest()
