"""Merges adapters with their base models: those of other jobs before anything reads them, this run's own at its end."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hone.contract.report import Manifest
from hone.contract.runconfig import Merge
from hone_trainer.data.digest import TEMPLATES, tokenizer_files
from hone_trainer.models.facts import is_model, model_digest, weights_bytes
from hone_trainer.models.loading import load_adapter, load_config, load_model
from hone_trainer.models.untrusted import ADAPTER, CONFIG_BYTES, PROCESSORS, check_model
from hone_trainer.protocol import manifest, shared
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.files import remove_named, remove_stale, sync_tree, write_atomic
from hone_trainer.protocol.units import gib
from hone_trainer.protocol.volumes import copy_file, read_file, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GENERATION_FILE, GENERATION_BYTES = "generation_config.json", 1 << 20
MANIFEST_FILE, MANIFEST_BYTES = "MANIFEST.json", 16 << 20
_TEMPORARY = ".merging-"

log = logging.getLogger(__name__)


class MergedManifest(Manifest):
    """The content of `MANIFEST_FILE` in a merged model's directory: all of its other files."""

    made_of: str
    """Digests of the adapter and of its base."""


def ensure_merged(merge: Merge) -> None:
    """Create the merged model, unless it exists as it was written: jobs on one workspace share it.

    It counts only if its manifest names the very adapter and base that are there now, and if each of its files is as
    it was written. Otherwise it is merged again.

    Raises:
        BadInput: the adapter's base is no longer the one that it was trained on, or the workspace is too small.
    """
    into = Path(merge.merged)
    shared.use(into)
    remove_stale(into.parent, _TEMPORARY)
    base = Path(merge.base)
    check_model(base, merge.field)
    check_model(Path(merge.adapter), merge.field)
    if merge.base_digest is not None and not is_model(base, merge.base_digest):
        raise BadInput(
            merge.field,
            f"is an adapter, but {base} is no longer the model that it was trained on",
            "Put that model back, or train the adapter again.",
        )
    made_of = _made_of(merge)
    if into.exists():
        problem = _difference(into, made_of)
        if problem is None:
            log.info("Already merged", extra={"directory": str(into)})
            return
        log.warning("A merged model is made again", extra={"directory": str(into), "reason": problem})
    into.parent.mkdir(parents=True, exist_ok=True)
    _require_space(into.parent, weights_bytes(base))
    from transformers import AutoModelForCausalLM

    directory = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=into.parent))
    try:
        model = merged_model(AutoModelForCausalLM, base, Path(merge.adapter))
        model.config._name_or_path = _base_name(Path(merge.adapter), merge.field)
        model.save_pretrained(directory)
        copy_served_files(Path(merge.adapter), directory, merge.field)
        merged = MergedManifest(made_of=made_of, files=manifest.list_files(directory))
        write_atomic(directory / MANIFEST_FILE, merged.to_json().encode())
        sync_tree(directory)
        directory.chmod(0o755)
        _put(directory, into, made_of)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    log.info("Merged", extra={"adapter": merge.adapter, "base": merge.base, "directory": str(into)})


def _made_of(merge: Merge) -> str:
    """What identifies the content of a merged model: the adapter's files and the base's."""
    return f"{manifest.digest_of(manifest.list_files(Path(merge.adapter)))} {model_digest(Path(merge.base))}"


def _difference(into: Path, made_of: str) -> str | None:
    """How a merged model differs from what one of these parts was when it was written; None if it does not."""
    try:
        written = MergedManifest.model_validate_json(read_file(into, MANIFEST_FILE, "spec.workspace", MANIFEST_BYTES))
    except (OSError, BadInput, ValidationError) as error:
        return f"it has no manifest: {type(error).__name__}"
    if written.made_of != made_of:
        return "it was made of another adapter or base"
    return manifest.in_words(manifest.differences(into, written.files, without=(MANIFEST_FILE,))) or None


def _put(directory: Path, into: Path, made_of: str) -> None:
    """Give a merged model its name. What has it and differs is removed; readers keep files that they have open."""
    if into.is_symlink() or (into.exists() and _difference(into, made_of) is not None):
        remove_named(into, _TEMPORARY)
    try:
        directory.rename(into)
    except OSError:  # another job on this workspace was faster
        if _difference(into, made_of) is not None:
            raise


def merged_model(auto: Any, base: Path | str, adapter: Path | str, **settings: Any) -> "PreTrainedModel":
    """The base model with the adapter added to its weights, in the base's own data type.

    The adapter's product is added in fp32, so that each weight is rounded once: PEFT's `safe_merge` rounds twice.

    Args:
        auto: transformers' Auto class of the model.
        base: directory of the base model.
        adapter: directory of the adapter.
        settings: further arguments for loading the base.
    """
    import torch

    dtype = load_config(base).dtype or torch.float32
    model = load_model(auto, base, dtype=dtype, **settings)
    merged: PreTrainedModel = load_adapter(model, adapter).merge_and_unload().to(dtype)
    return merged


def copy_served_files(source: Path, directory: Path, field: str) -> None:
    """Copy byte for byte what is served with the weights: what was not trained is served as it was.

    Only the files of a tokenizer, of what prepares images, and the generation config, and only as regular files of
    limited size on the volume: whoever fills it must not put another file of this pod into what is served.

    Args:
        source: directory of the model or adapter.
        directory: of the artifact.
        field: the spec's field that names the source, for errors.

    Raises:
        BadInput: a file leads out of its volume, is no regular file, or is too large.
    """
    (directory / TEMPLATES).mkdir(exist_ok=True)
    others = {GENERATION_FILE: GENERATION_BYTES, **dict.fromkeys(PROCESSORS, CONFIG_BYTES)}
    for name, limit in {**tokenizer_files(source, field), **others}.items():
        copy_file(source, name, directory / name, field, limit)
    if not any((directory / TEMPLATES).iterdir()):
        (directory / TEMPLATES).rmdir()


def _base_name(adapter: Path, field: str) -> str:
    """What the adapter calls its base: no path of this pod."""
    return str(read_json(adapter, ADAPTER, field, CONFIG_BYTES).get("base_model_name_or_path") or "")


def _require_space(volume: Path, needed: int) -> None:
    shared.make_room(volume, needed)
    free = shutil.disk_usage(volume).free
    if needed > free:
        raise BadInput(
            "spec.workspace.size",
            f"merging an adapter with its base model needs {gib(needed)}, but {gib(free)} are free",
            f"Raise it by {gib(needed)}.",
        )
