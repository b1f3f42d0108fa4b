"""The second pass: tokens and labels, cut and shuffled, written as a content-addressed directory."""

import json
import logging
import os
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.contract.plan import DatasetSummary
from hone.contract.settings import DataFormat
from hone_trainer.data.classes import Classes, skew_warning
from hone_trainer.data.encode import UNMARKABLE
from hone_trainer.data.prepared import IGNORE_INDEX, META_FILE, SPLITS
from hone_trainer.data.rows import Column, RowEncoder
from hone_trainer.data.sources import Source
from hone_trainer.data.splits import shuffle_key
from hone_trainer.data.survey import Survey, Ticker, good_samples
from hone_trainer.data.text import UNSHOWN
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.protocol.files import remove_stale

if TYPE_CHECKING:
    from datasets import Dataset, Features

log = logging.getLogger(__name__)

WARN_TRUNCATED = 0.01
FAIL_TRUNCATED = 0.10
_MAX_EXAMPLE = 1024
_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class Options:
    """What decides how rows become tokens, beside the rows and the tokenizer."""

    seed: int
    sequence_length: int | None
    """Cut to this many tokens; None: to the longest training row, at most `max_length`."""
    max_length: int
    """Longest context of the model in tokens."""


@dataclass
class _Split:
    """Numbers kept in memory of each written row, in writing order: some 40 bytes a row."""

    lengths: array = field(default_factory=lambda: array("q"))
    first_trained: array = field(default_factory=lambda: array("q"))
    keys: list[bytes] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


_TEST_COLUMNS = {"prompt_ids": Column.IDS, "reference": Column.TEXT, "prompt": Column.TEXT}


def build_prepared(
    target: Path, digest: str, sources: list[Source], survey: Survey, encoder: RowEncoder, options: Options
) -> None:
    """Write the prepared data to `target`, which is there in full afterwards, or, on any error, not at all.

    Raises:
        BadInput: no training row is left, or too many would be cut.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target.parent, _TEMPORARY)
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target.parent))
    try:
        _write(temporary, digest, sources, survey, encoder, options)
        # mkdtemp makes it private, but other runs on this volume may use it too.
        temporary.chmod(0o775)
        if target.exists() and not (target / META_FILE).exists():
            shutil.rmtree(target)
        try:
            temporary.rename(target)
        except OSError:
            if not (target / META_FILE).exists():
                raise
            log.info("Another run has just prepared the same data", extra={"directory": str(target)})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    directory: Path, digest: str, sources: list[Source], survey: Survey, encoder: RowEncoder, options: Options
) -> None:
    from datasets import disable_progress_bars

    disable_progress_bars()
    raw = directory / "raw"
    raw.mkdir()
    splits, stops, example = _tokenize(raw, sources, survey, encoder, options)
    train = splits["train"]
    if not train.lengths:
        raise _nothing_left(survey)
    longest = max(train.lengths)
    limit = options.sequence_length or min(longest, options.max_length)
    truncated = sum(length > limit for length in train.lengths)
    warnings = _check_truncation(truncated, len(train.lengths), longest, limit, options)
    counts, tokens, share = {}, 0, 0.0
    classes = encoder.classes
    for name in SPLITS:
        dataset = _finish_split(raw, name, splits[name], limit, survey, options.seed, encoder)
        counts[name] = len(dataset)
        if name == "train":
            if not counts[name]:
                raise _nothing_left(survey)
            tokens, share = _count_tokens(dataset, encoder)
            classes = _recount(classes, dataset) if classes else None
        # One shard, always: left to itself it writes none for a split without rows, which then cannot be loaded.
        dataset.save_to_disk(str(directory / name), num_shards=1)
    shutil.rmtree(raw)
    if survey.faults.total:
        warnings.append(f"{survey.faults.total} rows were left out as faulty: see dataset.badRows.")
    if not stops:
        warnings.append("No end-of-turn token carries loss, so the model will not learn where to stop.")
    warnings += encoder.warnings()
    warnings += skew_warning(classes) if classes and survey.format is DataFormat.TEXT_LABEL else []
    summary = DatasetSummary(
        digest=f"sha256:{digest}",
        format=survey.format,
        train_on=encoder.train_on,
        train_rows=counts["train"],
        validation_rows=counts["validation"],
        test_rows=counts["test"],
        bad_rows=survey.faults.summary(),
        duplicate_rows=survey.duplicates,
        truncated_rows=truncated,
        tokens=tokens,
        trained_token_share=share,
        longest_row=longest,
        class_count=len(classes.names) if classes else None,
        classes=classes.shown() if classes else None,
        example=example,
    )
    meta = {"summary": summary.to_dict(), "sequenceLength": min(limit, longest), "warnings": warnings}
    if classes:
        meta["classes"] = {"names": classes.names, "rows": classes.rows}
    with (directory / META_FILE).open("w") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())


def _tokenize(
    raw: Path, sources: list[Source], survey: Survey, encoder: RowEncoder, options: Options
) -> tuple[dict[str, _Split], bool, str | None]:
    """Write every row once, uncut, in reading order; tell the splits, whether stopping is learned, and an example."""
    from datasets.arrow_writer import ArrowWriter

    splits = {name: _Split() for name in SPLITS}
    writers = {name: ArrowWriter(path=str(raw / f"{name}.arrow"), features=_features(name, encoder)) for name in SPLITS}
    ticker, stops, example = Ticker(), False, None
    done = 0
    for ref, (where, sample) in zip(survey.refs, good_samples(sources, survey.format), strict=True):
        done += 1
        ticker.tick("Tokenizing", rows=done, totalRows=len(survey.refs))
        if ref.split is None:
            continue
        try:
            encoded = encoder.encode(sample)
            row = {**encoded.columns(), "length": encoded.length}
            if ref.split == "test":
                row |= _test_columns(encoder, sample, options.max_length)
        except RowFault as fault:
            survey.faults.add(str(fault), where)
            continue
        if ref.split == "train":
            stops = stops or encoder.learns_to_stop(encoded)
            example = example or encoder.decode(encoded, _MAX_EXAMPLE)
        writers[ref.split].write(row)
        split = splits[ref.split]
        split.lengths.append(encoded.length)
        split.first_trained.append(encoded.first_trained)
        split.keys.append(shuffle_key(options.seed, ref.row))
        split.places.append(where)
    for writer in writers.values():
        writer.finalize()
        writer.close()
    return splits, stops, example


def _test_columns(encoder: RowEncoder, sample: Any, max_length: int) -> dict[str, Any]:
    ids, text = encoder.prompt(sample)
    if len(ids) >= max_length:
        raise RowFault(f"the prompt alone fills the model's context of {max_length} tokens")
    return {"prompt_ids": ids, "reference": encoder.reference(sample), "prompt": text}


def _finish_split(
    raw: Path, name: str, split: _Split, limit: int, survey: Survey, seed: int, encoder: RowEncoder
) -> "Dataset":
    """A split's rows, those without a trained token left out, shuffled if it is train, and cut."""
    from datasets import Dataset

    path = raw / f"{name}.arrow"
    if not split.lengths:
        features = _features(name, encoder)
        return Dataset.from_dict({column: [] for column in features}, features=features)
    kept = []
    for i, first in enumerate(split.first_trained):
        if first < limit:
            kept.append(i)
        else:
            survey.faults.add(f"nothing to train on within the first {limit} tokens", split.places[i])
    if name == "train":
        kept.sort(key=lambda i: (split.keys[i], i))
    dataset = Dataset.from_file(str(path)).select(kept)
    if any(split.lengths[i] > limit for i in kept):
        dataset = dataset.map(_cut(encoder, limit), cache_file_name=str(raw / f"{name}-cut.arrow"))
    if encoder.NEIGHBORS and name != "test" and kept:
        dataset = dataset.map(
            _neighbors(encoder, dataset),
            with_indices=True,
            batched=True,
            cache_file_name=str(raw / f"{name}-neighbors.arrow"),
            new_fingerprint=f"{name}-neighbors",
        )
    return dataset


def _neighbors(encoder: RowEncoder, rows: "Dataset") -> Callable[[dict[str, list], list[int]], dict[str, list]]:
    def add(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        before = rows[indices[0] - 1]
        return {new: [before[column], *batch[column][:-1]] for new, column in encoder.NEIGHBORS.items()}

    return add


def _cut(encoder: RowEncoder, limit: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def cut(row: dict[str, Any]) -> dict[str, Any]:
        return {**encoder.cut(row, limit), "length": min(row["length"], limit)}

    return cut


def _count_tokens(dataset: "Dataset", encoder: RowEncoder) -> tuple[int, float]:
    """Tokens of all rows, and the share of them that carries loss: none where no column tells."""
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
    """The classes with the training rows that were written: some were left out since they were surveyed."""
    counts = Counter(train["label"][:])
    return Classes(classes.names, tuple(counts[index] for index in range(len(classes.names))))


def _check_truncation(truncated: int, count: int, longest: int, limit: int, options: Options) -> list[str]:
    share = truncated / count
    if share <= WARN_TRUNCATED:
        return []
    said = f"{truncated} of {count} training rows ({share:.0%}) exceed {limit} tokens, the longest has {longest}"
    if share <= FAIL_TRUNCATED:
        return [f"{said}. They are cut."]
    if limit < options.max_length:
        wanted = min(longest, options.max_length)
        raise BadInput(
            "spec.hyperparameters.sequenceLength",
            f"{said}, and more than {FAIL_TRUNCATED:.0%} would be cut",
            f"Raise it to {wanted}, leave it out to fit the data, or shorten the rows.",
        )
    raise BadInput(
        "spec.dataset.train",
        f"{said}, which is the model's context, and more than {FAIL_TRUNCATED:.0%} would be cut",
        "Shorten or split the rows, or choose a model with a longer context.",
    )


def _nothing_left(survey: Survey) -> BadInput:
    faults = survey.faults
    if UNMARKABLE in faults.counts:
        return BadInput(
            "spec.model",
            f"its chat template (chat_template) cannot be used to train on the assistant's turns: {UNMARKABLE}",
            "Add {% generation %}…{% endgeneration %} around the assistant's text in the template, or set "
            "spec.dataset.trainOn to All.",
        )
    if UNSHOWN in faults.counts:
        return BadInput(
            "spec.model",
            f"its chat template (chat_template) cannot be used for text: {UNSHOWN}",
            "Put a template for text into chat_template.jinja, or choose a model of text.",
        )
    if faults.counts:
        reason = max(faults.counts, key=lambda r: faults.counts[r])
        return BadInput(
            "spec.dataset.train",
            f"no training row is left; {faults.counts[reason]} rows, first {faults.first[reason]}: {reason}",
            "Mend these rows.",
        )
    return BadInput(
        "spec.dataset.train",
        f"no training row is left: the {len(survey.refs)} rows all went to validation and test, "
        f"or stand there too ({survey.duplicates} duplicates)",
        "Give more rows, or smaller fractions in spec.dataset.validation and spec.dataset.test.",
    )


def _features(name: str, encoder: RowEncoder) -> "Features":
    from datasets import Features, List, Value

    tokens, number = List(Value("int32")), Value("int32")
    types = {Column.IDS: tokens, Column.LABELS: tokens, Column.NUMBER: number, Column.TEXT: Value("string")}
    columns = {**encoder.COLUMNS, "length": Column.NUMBER, **(_TEST_COLUMNS if name == "test" else {})}
    return Features({column: types[kind] for column, kind in columns.items()})
