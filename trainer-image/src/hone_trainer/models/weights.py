"""The shapes of a model's weights, by the headers of its safetensors files, which are checked before any is loaded.

A file is 8 bytes of length, a header in JSON, and the tensors one after the other, without gaps.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone_trainer.models.untrusted import INDEX, INDEX_BYTES
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.volumes import read_json, require_file, shown

Shapes = Mapping[str, tuple[int, ...]]

MAX_LISTED = 20
_FIELD = "spec.model"
_MAX_HEADER = 32 << 20
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of a value, by safetensors' names of the types that a whole model may have."""
_COPY_AGAIN = "Copy it again; with Git, fetch it with git lfs pull."


def weight_shapes(path: Path) -> Shapes:
    """The shape of each weight in a model's directory, by name.

    Raises:
        BadInput: there are none, or a file is missing, incomplete or not consistent.
    """
    names = sorted(file.name for file in path.glob("*.safetensors"))
    if (path / INDEX).is_file():
        indexed = _indexed(path)
        if missing := sorted(indexed - set(names)):
            raise BadInput(
                _FIELD,
                f"{len(missing)} of {len(indexed)} weight files are missing, the first is {shown(missing[0])}",
                "Copy the whole model.",
            )
        names = sorted(indexed)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        shapes.update(_header_shapes(path, name))
    if not shapes:
        raise BadInput(
            _FIELD,
            f"no weights in {path}: it has {listing(path, directories=False)}",
            "Copy the model's *.safetensors files there.",
        )
    return shapes


def listing(directory: Path, *, directories: bool) -> str:
    """What is in a directory, for a message."""
    names = sorted(shown(p.name) for p in directory.iterdir() if not directories or p.is_dir())
    text = ", ".join(names[:MAX_LISTED]) + (" …" if len(names) > MAX_LISTED else "")
    return text or ("no directory" if directories else "nothing")


def _indexed(path: Path) -> set[str]:
    """The names of the weight files that the index lists."""
    files = read_json(path, INDEX, _FIELD, INDEX_BYTES).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise BadInput(_FIELD, f"weight_map in {INDEX} is not a map of names", "Copy the file again.")
    return set(files.values())


def _header_shapes(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    with require_file(path, name, _FIELD) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(_MAX_HEADER, size - 8):
            raise BadInput(_FIELD, f"{shown(name)} is not a complete safetensors file ({size} bytes)", _COPY_AGAIN)
        text = stream.read(length)
    try:
        header = json.loads(text)
        tensors = {key: _tensor(entry) for key, entry in header.items() if key != "__metadata__"}
        end = 0
        for begin, after, _ in sorted(tensors.values()):
            if begin != end:
                raise ValueError(f"its tensors overlap, or have a gap at byte {end}")
            end = after
        if size != 8 + length + end:
            raise ValueError(f"it has {size} bytes, and its header says {8 + length + end}")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        problem = f"{shown(name)} is not a complete safetensors file: {shown(error)}"
        raise BadInput(_FIELD, problem, _COPY_AGAIN) from error
    return {key: shape for key, (_, _, shape) in tensors.items()}


def _tensor(entry: Any) -> tuple[int, int, tuple[int, ...]]:
    """Begin and end in the file, and shape.

    Raises:
        ValueError, KeyError, TypeError: the entry is none of a tensor, or its parts contradict each other.
    """
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in (begin, end, *shape)):
        raise ValueError("offsets and shapes must be whole numbers")
    if len(shape) > 8 or math.prod(shape) * _BITS[entry["dtype"]] != 8 * (end - begin):
        raise ValueError(f"a tensor of shape {list(shape)[:8]} and type {entry['dtype']} has {end - begin} bytes")
    return begin, end, shape
