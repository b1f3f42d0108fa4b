"""Prepared data on disk: one directory per content digest, created once and mapped by every rank.

    <workspace>/prepared/<digest>/
        prepared.json      the DatasetSummary, notes and all files of the splits; written last, so a directory without
                           it is incomplete
        train/ validation/ test/      Hugging Face datasets, as `Dataset.save_to_disk` writes them
        packed-<tokens>/              train once more, packed (hone_trainer.data.pack); only where a plan packs

Columns of every split, one row per conversation, already cut to the sequence length and (train) shuffled:

    input_ids    list[int32]  token ids, special tokens included, no padding
    labels       list[int32]  the same length; -100 on each token that carries no loss
    length       int32        tokens of the row, or of its longest sequence

Other objectives have other columns than the first two (`RowEncoder.COLUMNS`). Rows with classes (format TextLabel)
have instead of `labels`:

    label        int32        index of the row's class in `Prepared.classes`; where a row may have several classes or
                              none, list[int32] of all of them

Pairs for a reward model (format Preference) have instead of both:

    chosen_ids, rejected_ids    list[int32]  prompt and answer in one, each

and for DPO:

    prompt_ids                  list[int32]  the prompt, never cut
    chosen_ids, rejected_ids    list[int32]  the answers

and rated answers for KTO (format UnpairedPreference):

    prompt_ids, completion_ids  list[int32]  the prompt, never cut, and the answer
    label                       int32        1 for a good one, 0 for a bad one
    KL_completion_ids           list[int32]  the answer of the row before; not in the test split

and prompts that the model answers itself (format Prompt):

    prompt_ids                  list[int32]  ids up to and including the generation prompt, never cut
    written                     str          JSON of the prompt as it was written: a string, or a list of messages
    references                  str          JSON of the list of strings that an answer is compared to
    length                      int32        tokens of the prompt and of the longest answer that it may get

TRL 1.16's SFTTrainer uses `labels` as they are and, with `dataset_kwargs={"skip_prepare_dataset": True}` adds nothing;
its mask columns (`assistant_masks`, `completion_mask`) would only be turned into the same labels by another pass.

The test split has three more:

    prompt_ids   list[int32]  ids up to and including the generation prompt of the last assistant turn, never cut
    reference    str          text of the last assistant turn, without special tokens
    prompt       str          the text that `prompt_ids` encode, for reports

and with `evaluation.groupBy` one more:

    evaluation_group   str    value of that column; "" where a row has none

With classes, `prompt_ids` encode the whole text and `reference` is the class's name, or the names of all
its classes; of pairs it is the better answer.

`validation` and `test` may have no rows: small data, or, for validation, by the user's wish.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.plan import DatasetSummary
from hone.contract.report import ArtifactFile, ScoredRows
from hone_trainer.data.classes import Classes
from hone_trainer.protocol import manifest

if TYPE_CHECKING:
    from datasets import Dataset

META_FILE = "prepared.json"
SPLITS = ("train", "validation", "test")
IGNORE_INDEX = -100


@dataclass(frozen=True)
class Prepared:
    """Data ready for training and scoring; the columns are described in this module's docstring."""

    directory: Path
    summary: DatasetSummary
    sequence_length: int
    """Tokens of the longest row after cutting; no row of any split is longer."""
    warnings: list[str]
    """Warnings about the data, as sentences for the user."""
    train: "Dataset"
    """As it is trained on: packed where the plan says so."""
    validation: "Dataset"
    test: "Dataset"
    ends: tuple[int, ...] = ()
    """The special tokens that trained answers end with."""
    classes: Classes | None = None
    """The classes with their training rows, where rows have classes."""


def packed_path(directory: Path, length: int) -> Path:
    """Where prepared data hold their training rows packed to `length` tokens."""
    return directory / f"packed-{length}"


def load_prepared(directory: str | Path, packed_length: int | None = None) -> Prepared:
    """Map the prepared data of a directory; nothing is read into memory.

    Args:
        directory: as prepare wrote it.
        packed_length: the plan's, for training rows packed to this length; None: as they are.

    Raises:
        FileNotFoundError: the directory is not there or is not whole.
    """
    from datasets import load_from_disk

    directory = Path(directory)
    meta = json.loads((directory / META_FILE).read_text())
    folders = {name: directory / name for name in SPLITS}
    if packed_length is not None:
        folders["train"] = packed_path(directory, packed_length)
    splits = {name: load_from_disk(str(folder)) for name, folder in folders.items()}
    return Prepared(
        directory=directory,
        summary=DatasetSummary.from_dict(meta["summary"]),
        sequence_length=meta["sequenceLength"],
        warnings=meta["warnings"],
        **splits,
        ends=tuple(meta.get("ends", ())),
        classes=Classes.of(meta.get("classes")),
    )


def difference(directory: Path, digest: str) -> str | None:
    """How a directory differs from what prepare wrote under this digest; None if it does not, or is of older releases.

    These listed no files, and a run in flight at an upgrade trains on them.

    Args:
        directory: on a workspace that other jobs may share.
        digest: of all that the data depend on.
    """
    if directory.is_symlink() or not (directory / META_FILE).is_file():
        return "it is not whole"
    try:
        meta = json.loads((directory / META_FILE).read_bytes())
        if meta["summary"]["digest"] != f"sha256:{digest}":
            return "it was made of other data"
        listed = [ArtifactFile.from_dict(file) for file in meta.get("files") or []]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{META_FILE} cannot be read: {type(error).__name__}"
    try:
        return manifest.in_words(manifest.compare(files_of_splits(directory), listed)) or None if listed else None
    except (manifest.NoRegularFile, FileNotFoundError, NotADirectoryError) as error:
        return str(error)


def files_of_splits(directory: Path) -> list[ArtifactFile]:
    """Every file of the splits, with its digest; not the packed rows, which are written later.

    Raises:
        NoRegularFile: there is something else than directories and regular files.
    """
    return [
        file.model_copy(update={"path": f"{name}/{file.path}"})
        for name in SPLITS
        for file in manifest.list_files(directory / name)
    ]


def chosen_rows(count: int, most: int) -> list[int]:
    """Which rows of a split are evaluated: all, or `most` of them, drawn the same way every time, in their order."""
    return list(range(count)) if count <= most else sorted(random.Random(0).sample(range(count), most))


def scored_rows(rows: "Dataset") -> ScoredRows:
    """Digests of scored rows. Rows without a prompt, as raw text has, are told apart by their tokens."""
    names = [name for name in ("prompt", "prompt_ids", "input_ids") if name in rows.column_names]
    # Of raw text, all prompts are empty.
    texts: list[object] = next((values for name in names if any(values := rows[name][:])), [])
    references = rows["reference"][:] if "reference" in rows.column_names else []
    return ScoredRows(prompts=_sha256(texts), references=_sha256(references))


def _sha256(values: list[object]) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(values).encode()).hexdigest()}"
