"""The second pass: tokens and labels, cut and shuffled, written as a content-addressed directory."""

import json
import logging
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.contract.plan import DatasetSummary
from hone.contract.settings import DataFormat
from hone_trainer.data.build_errors import check_bad_rows, check_truncation, no_rows_left
from hone_trainer.data.classes import Classes, case_warning, skew_warning
from hone_trainer.data.groups import EVALUATION_GROUP, check_groups
from hone_trainer.data.ordered import finish_split, shuffled
from hone_trainer.data.prepared import IGNORE_INDEX, META_FILE, SPLITS, difference, files_of_splits
from hone_trainer.data.raw_text import divide
from hone_trainer.data.rows import Column, RowEncoder
from hone_trainer.data.survey import Survey
from hone_trainer.data.token_rows import Options, Tokenized
from hone_trainer.data.tokenized import tokenize
from hone_trainer.protocol.files import remove_named, remove_stale

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class _Lengths:
    """Lengths of the training rows, in tokens.

    Attributes:
        longest: of the longest row before it is cut.
        limit: rows are cut to so many tokens.
        truncated: how many rows are cut.
    """

    longest: int
    limit: int
    truncated: int


@dataclass(frozen=True)
class _Counts:
    """What is counted in the rows of the prepared splits.

    Attributes:
        rows: rows of each split.
        tokens: tokens of the training rows.
        trained_share: the share of these that carries loss.
        classes: the classes with their training rows; None without classes.
    """

    rows: dict[str, int]
    tokens: int
    trained_share: float
    classes: Classes | None


def build_prepared(
    target: Path, digest: str, survey: Survey, encoder: RowEncoder, options: Options, run: str = "local"
) -> None:
    """Write the prepared data to `target`, which exists in full afterwards, or, on any error, not at all.

    A process that is stopped or killed leaves what it has tokenized, from where the next one of the run continues.

    Args:
        target: the directory.
        digest: its name.
        survey: the first pass.
        encoder: what encodes the rows.
        options: how.
        run: the run that writes.

    Raises:
        BadInput: no training row is left, or too many would be cut.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target.parent, _TEMPORARY)
    temporary = target.parent / f"{_TEMPORARY}{digest[:16]}-{run}"
    if temporary.is_symlink():
        temporary.unlink()
    temporary.mkdir(exist_ok=True)
    try:
        _write(temporary, digest, survey, encoder, options)
        # Other runs on this volume may use it too.
        temporary.chmod(0o775)
        if (target.exists() or target.is_symlink()) and difference(target, digest) is not None:
            remove_named(target, _TEMPORARY)
        try:
            temporary.rename(target)
        except OSError:
            if difference(target, digest) is not None:
                raise
            log.info("Another run has just prepared the same data", extra={"directory": str(target)})
            shutil.rmtree(temporary, ignore_errors=True)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(directory: Path, digest: str, survey: Survey, encoder: RowEncoder, options: Options) -> None:
    from datasets import disable_progress_bars

    disable_progress_bars()
    raw = directory / "raw"
    # Of an attempt that was stopped, only the tokenized rows are used.
    for name in SPLITS:
        shutil.rmtree(directory / name, ignore_errors=True)
    raw.mkdir(exist_ok=True)
    tokenized = tokenize(raw, digest, survey, encoder, options)
    train = tokenized.splits["train"].lengths
    if not train:
        raise no_rows_left(survey, options.template_field)
    check_bad_rows("train", len(survey.refs), survey.faults, options.max_bad_rows, options.template_field)
    longest = max(train)
    limit = options.sequence_length or min(longest, options.max_length, options.default_piece or options.max_length)
    cut = 0 if options.default_piece else sum(length > limit for length in train)
    lengths = _Lengths(longest, limit, cut)
    warnings = check_truncation(lengths.truncated, len(train), longest, limit, options)
    counts = _save_splits(directory, tokenized, limit, survey, encoder, options)
    shutil.rmtree(raw)
    warnings += [*_warnings(survey, tokenized, encoder, counts.classes), *options.checks.warnings()]
    summary = _summary(digest, survey, tokenized, encoder, lengths, counts)
    meta = {"summary": summary.to_dict(), "sequenceLength": min(limit, longest), "warnings": warnings}
    meta["ends"] = options.checks.learned_ends()
    if counts.classes:
        meta["classes"] = counts.classes.to_dict()
    meta["files"] = [file.to_dict() for file in files_of_splits(directory)]
    _write_meta(directory / META_FILE, meta)


def _save_splits(
    directory: Path, tokenized: Tokenized, limit: int, survey: Survey, encoder: RowEncoder, options: Options
) -> _Counts:
    """Write the splits as datasets, each in its final order, and count their rows."""
    counts, divided = _Counts({}, 0, 0.0, encoder.classes), options.default_piece is not None
    for name in SPLITS:
        rows = tokenized.splits[name]
        raw, grouped = directory / "raw", survey.grouped_by is not None
        dataset = finish_split(raw, name, rows, limit, encoder, survey.faults, cut=not divided, grouped=grouped)
        if grouped and name == "test":
            check_groups(dataset[EVALUATION_GROUP][:], survey.grouped_by)
        if divided and len(dataset):
            dataset = divide(dataset, limit, str(directory / "raw" / f"{name}-pieces.arrow"))
            dataset = shuffled(dataset, options.seed) if name == "train" else dataset
        counts.rows[name] = len(dataset)
        if name == "train":
            if not counts.rows[name]:
                raise no_rows_left(survey, options.template_field)
            tokens, share = _count_tokens(dataset, encoder)
            # Of repeated rows the classes keep their own numbers: the most frequent one is what the model must beat.
            classes = counts.classes
            if classes and not survey.oversampled:
                classes = _recount(classes, dataset)
            counts = replace(counts, tokens=tokens, trained_share=share, classes=classes)
        # Always one shard: by default none is written for a split without rows, which then cannot be loaded.
        dataset.save_to_disk(str(directory / name), num_shards=1)
    return counts


def _warnings(survey: Survey, tokenized: Tokenized, encoder: RowEncoder, classes: Classes | None) -> list[str]:
    warnings = survey.unused.warnings()
    if survey.faults.total:
        warnings.append(f"{survey.faults.total} faulty rows were left out: see status.dataset.badRows.")
    if not tokenized.learns_to_stop:
        warnings.append("No end-of-turn token carries loss, so the model will not learn where to stop.")
    warnings += encoder.warnings()
    if classes and survey.format is DataFormat.TEXT_LABEL:
        warnings += [*case_warning(classes), *([] if survey.oversampled else skew_warning(classes))]
    return warnings


def _summary(
    digest: str, survey: Survey, tokenized: Tokenized, encoder: RowEncoder, lengths: _Lengths, counts: _Counts
) -> DatasetSummary:
    return DatasetSummary(
        digest=f"sha256:{digest}",
        format=", ".join(survey.formats),
        sources=survey.source_rows,
        train_on=encoder.train_on,
        train_rows=counts.rows["train"],
        validation_rows=counts.rows["validation"],
        test_rows=counts.rows["test"],
        bad_rows=survey.faults.summary(),
        unused_keys=survey.unused.summary(),
        duplicate_rows=survey.duplicates,
        truncated_rows=lengths.truncated,
        tokens=counts.tokens,
        trained_token_share=counts.trained_share,
        longest_row=lengths.longest,
        class_count=len(counts.classes.names) if counts.classes else None,
        classes=counts.classes.shown() if counts.classes else None,
        example=tokenized.example,
        example_outline=tokenized.outline,
    )


def _write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Write it through to the disk: this file says that the directory is complete."""
    with path.open("w") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())


def _count_tokens(dataset: "Dataset", encoder: RowEncoder) -> tuple[int, float]:
    """Tokens of all rows, and the share of them that carries loss; 0 if no column has labels."""
    import pyarrow.compute as pc

    total = trained = 0
    for batch in dataset.with_format("arrow").iter(batch_size=1000):
        for name, kind in encoder.COLUMNS.items():
            if kind is Column.IDS:
                total += pc.sum(pc.list_value_length(batch[name])).as_py() or 0
            elif kind is Column.LABELS:
                trained += pc.sum(pc.not_equal(pc.list_flatten(batch[name]), IGNORE_INDEX)).as_py() or 0
    return total, round(trained / total, 4) if total else 0.0


def _recount(classes: Classes, train: "Dataset") -> Classes:
    """The classes with the training rows that were written: rows may have been left out since the first pass."""
    labels = train["label"][:]
    counts = Counter(index for indices in labels for index in indices) if classes.several else Counter(labels)
    rows = tuple(counts[index] for index in range(len(classes.names)))
    return replace(classes, rows=rows, total=len(labels) if classes.several else None)
