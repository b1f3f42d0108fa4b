"""Packed rows: several rows of a prepared split concatenated, by TRL's best-fit-decreasing helper.

    <workspace>/prepared/<digest>/packed-<length>/      a Hugging Face dataset

    input_ids, labels    list[int32]  of all its rows, one after the other
    seq_lengths          list[int]    how many tokens each of them has

TRL's collator makes `position_ids` from `seq_lengths`, which start at 0 in each row and by which attention keeps the
rows apart. It also takes the loss from each row's first token, which nothing precedes.
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.report import ArtifactFile
from hone_trainer.data.prepared import packed_path
from hone_trainer.protocol import manifest
from hone_trainer.protocol.files import remove_named, write_atomic

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_TEMPORARY = ".tmp-"
FILES = "files.json"
"""In a directory with packed rows: all other files in it."""


def pack(directory: Path, length: int) -> "Dataset":
    """The training rows of prepared data packed to at most `length` tokens, from disk if they were packed before.

    The same rows and length always give the same packed rows. A longer row stays alone, and whole.
    """
    from datasets import load_from_disk

    target = packed_path(directory, length)
    if (target.exists() or target.is_symlink()) and (problem := difference(target)) is not None:
        log.warning("Packed rows are made again", extra={"directory": str(target), "reason": problem})
        remove_named(target, _TEMPORARY)
    if target.exists():
        return load_from_disk(str(target))
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=directory.parent))
    try:
        packed = _packed(load_from_disk(str(directory / "train")), length, temporary / "map.arrow")
        packed.save_to_disk(str(temporary / "packed"), num_shards=1)
        files = [file.to_dict() for file in manifest.list_files(temporary / "packed")]
        write_atomic(temporary / "packed" / FILES, json.dumps(files).encode(), durable=True)
        (temporary / "packed").chmod(0o775)
        try:
            (temporary / "packed").rename(target)
        except OSError:
            if difference(target) is not None:
                raise
            log.info("Another run has just packed the same rows", extra={"directory": str(target)})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_from_disk(str(target))


def _packed(rows: "Dataset", length: int, cache: Path) -> "Dataset":
    from datasets import Dataset, concatenate_datasets
    from trl import pack_dataset

    lengths = row_lengths(rows)
    rows = rows.select_columns(["input_ids", "labels"])
    # TRL would cut them.
    long = [index for index, tokens in enumerate(lengths) if tokens > length]
    if not long:
        return pack_dataset(rows, length, "bfd", {"cache_file_name": str(cache), "load_from_cache_file": False})
    alone = rows.select(long)
    alone = Dataset.from_dict({**alone[:], "seq_lengths": [[lengths[index]] for index in long]})
    if len(long) == len(lengths):
        return alone
    short = rows.select([index for index, tokens in enumerate(lengths) if tokens <= length])
    packed = pack_dataset(short, length, "bfd", {"cache_file_name": str(cache), "load_from_cache_file": False})
    return concatenate_datasets([packed, alone.select_columns(packed.column_names).cast(packed.features)])


def difference(directory: Path) -> str | None:
    """How packed rows differ from what was written; None if they do not. Those of older releases have no list."""
    if directory.is_symlink() or not directory.is_dir():
        return "it is no directory"
    if not (directory / FILES).exists():
        return None
    try:
        listed = [ArtifactFile.from_dict(file) for file in json.loads((directory / FILES).read_bytes())]
    except (OSError, ValueError, TypeError) as error:
        return f"{FILES} cannot be read: {type(error).__name__}"
    return manifest.in_words(manifest.differences(directory, listed, without=(FILES,))) or None


def row_lengths(rows: "Dataset") -> list[int]:
    """Tokens of each row, in order; no token is read."""
    return list(rows["length"])
