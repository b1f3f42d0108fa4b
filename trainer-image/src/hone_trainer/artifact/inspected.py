"""What a published artifact is, by its configuration and its provenance, without its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hone.contract.report import SUMS_FILE
from hone.contract.results import ArtifactSummary
from hone_trainer.artifact.provenance import PROVENANCE_FILE
from hone_trainer.models.untrusted import ADAPTER, CONFIG, CONFIG_BYTES
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.volumes import read_file, read_json

SMALL_FILES = (SUMS_FILE, PROVENANCE_FILE, CONFIG, ADAPTER)
"""What `summary` reads."""
WEIGHTS = ".safetensors"
_REMEDY = "Name an artifact that a FineTuneJob published."


class Base(NamedTuple):
    """The model that an artifact was made from, as its provenance names it."""

    name: str | None
    digest: str | None


def summary(directory: Path, sizes: Mapping[str, int], digest: str, field: str) -> ArtifactSummary:
    """What an artifact is.

    Args:
        directory: has those of `SMALL_FILES` that the artifact has.
        sizes: bytes of each file of the artifact.
        digest: that of its SHA256SUMS.
        field: the spec's field that names it, for errors.

    Raises:
        BadInput: one of the files is not what a job writes.
    """
    base = base_of(directory, field)
    adapter = read_json(directory, ADAPTER, field, CONFIG_BYTES) if ADAPTER in sizes else None
    config = read_json(directory, CONFIG, field, CONFIG_BYTES) if CONFIG in sizes else None
    if (adapter is None) == (config is None):
        problem = f"has neither {CONFIG} nor {ADAPTER}" if adapter is None else f"has both {CONFIG} and {ADAPTER}"
        raise BadInput(field, problem, _REMEDY)
    if not any(name.endswith(WEIGHTS) for name in sizes):
        raise BadInput(field, f"has no weights in {WEIGHTS} files", _REMEDY)
    return ArtifactSummary(
        digest=digest,
        size_bytes=sum(sizes.values()),
        kind="Model" if adapter is None else "Adapter",
        api=_api(config) if config is not None else "Chat",
        lora_rank=_rank(adapter, field) if adapter is not None else None,
        base=base.name,
        base_digest=base.digest,
    )


def weights_bytes(sizes: Mapping[str, int]) -> int:
    """Bytes of the weights among files."""
    return sum(size for name, size in sizes.items() if name.endswith(WEIGHTS))


def base_of(directory: Path, field: str) -> Base:
    """Name and digest of the base in the provenance next to the artifact's files; neither where there is none."""
    try:
        content: Any = json.loads(read_file(directory, PROVENANCE_FILE, field, CONFIG_BYTES))
        entries = content["predicate"]["buildDefinition"]["resolvedDependencies"]
        entry = next(each for each in entries if each["name"] == "base")
        name, digest = (entry.get("annotations") or {}).get("model"), (entry.get("digest") or {}).get("hone.dev/sha256")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, StopIteration):
        return Base(None, None)
    return Base(str(name)[:512] if name else None, f"sha256:{digest}"[:128] if digest else None)


def _api(config: Mapping[str, Any]) -> str:
    """The API of a server of a model: a head that scores is one for a regression, as vLLM takes it."""
    classes = config.get("architectures")
    names = classes if isinstance(classes, list) else []
    if not any(isinstance(name, str) and name.endswith("ForSequenceClassification") for name in names):
        return "Chat"
    return "Reward" if config.get("problem_type") == "regression" else "Classify"


def _rank(adapter: Mapping[str, Any], field: str) -> int:
    pattern = adapter.get("rank_pattern")
    ranks = [adapter.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    if not all(type(rank) is int and 1 <= rank <= 1 << 14 for rank in ranks):
        raise BadInput(field, f"`r` in {ADAPTER} is no rank of a LoRA", _REMEDY)
    return max(int(rank) for rank in ranks if rank)
