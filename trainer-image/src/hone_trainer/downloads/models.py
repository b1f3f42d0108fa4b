"""Which files of a repository or a prefix a model consists of."""

import re
from collections.abc import Iterable

from hone.contract.runconfig import Download
from hone_trainer.protocol.errors import BadInput

_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_WEIGHTS, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"


def model_files(download: Download, names: Iterable[str]) -> list[str]:
    """The files of a model: no pickles, no copies of its weights in other formats, no subdirectories.

    Raises:
        BadInput: it has no weights in safetensors files.
    """
    files = {name for name in names if "/" not in name}
    if _INDEX in files:
        weights = {name for name in files if _SHARD.fullmatch(name)}
    else:
        weights = {name for name in files if name == _WEIGHTS}
    if not weights and _ADAPTER in files:
        remedy = "Name the model that it was trained on."
        raise BadInput(f"{download.field}.uri", "is an adapter without its base model", remedy)
    if not weights:
        raise BadInput(
            f"{download.field}.uri",
            f"has no {_WEIGHTS}: weights are read from safetensors files only",
            "Use a revision or a model with safetensors files. Pickles (.bin, .pt) can run code and are not read.",
        )
    return sorted(weights | {name for name in files if name.endswith(_SUFFIXES)})
