"""Row formats: detects the format of a row, and turns a row into a Sample."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.format_chat import from_alpaca, from_messages, from_share_gpt
from hone_trainer.data.format_preference import columns_before, from_preference
from hone_trainer.data.format_prompt import (
    RATINGS,
    from_prompt,
    from_prompt_completion,
    from_text,
    from_text_label,
    from_unpaired_preference,
    rated_conversation,
    rating,
    truth,
    with_prompt,
)
from hone_trainer.data.keys import check_columns_beside
from hone_trainer.data.label_values import ALIAS
from hone_trainer.data.providers import REFERENCES, as_prompt, unanswered
from hone_trainer.data.read import TURNS
from hone_trainer.data.sample import Sample
from hone_trainer.data.tools import TOOL_COLUMNS, parse_tools
from hone_trainer.data.turns import unpacked
from hone_trainer.protocol.errors import RowFault


@dataclass(frozen=True)
class RowFormat:
    """One way of writing a row.

    Attributes:
        columns: the columns that it needs.
        parse: turns a row that has these columns into a Sample, or raises RowFault.
        example: a row, for error messages.
        train_on: the default of `spec.dataset.trainOn`; None for objectives without this choice.
        optional: further columns that it reads where a row has them. All others are counted, or make the row bad.
    """

    columns: tuple[str, ...]
    parse: Callable[[dict[str, Any]], Sample]
    example: str
    train_on: TrainOn | None = None
    optional: tuple[str, ...] = ("system",)


FORMATS: dict[DataFormat, RowFormat] = {
    DataFormat.MESSAGES: RowFormat(
        ("messages",),
        from_messages,
        '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
        TrainOn.ASSISTANT,
    ),
    DataFormat.SHARE_GPT: RowFormat(
        ("conversations",),
        from_share_gpt,
        '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
        TrainOn.ASSISTANT,
    ),
    DataFormat.ALPACA: RowFormat(
        ("instruction", "output"),
        from_alpaca,
        '{"instruction": "…", "input": "…", "output": "…"}',
        TrainOn.ASSISTANT,
        ("input", "system", "history"),
    ),
    DataFormat.UNPAIRED_PREFERENCE: RowFormat(
        ("prompt", "completion", "label"),
        from_unpaired_preference,
        '{"prompt": "…", "completion": "…", "label": true}',
    ),
    DataFormat.PROMPT_COMPLETION: RowFormat(
        ("prompt", "completion"),
        from_prompt_completion,
        '{"prompt": "…", "completion": "…"}',
        TrainOn.COMPLETION,
    ),
    DataFormat.TEXT_LABEL: RowFormat(("text", "label"), from_text_label, '{"text": "…", "label": "…"}', optional=()),
    DataFormat.PREFERENCE: RowFormat(
        ("chosen", "rejected"),
        from_preference,
        '{"prompt": "…", "chosen": "…", "rejected": "…"}',
        optional=("prompt", "system"),
    ),
    DataFormat.PROMPT: RowFormat(
        ("prompt",), from_prompt, '{"prompt": "…", "reference": "…"}', optional=("reference", "system")
    ),
    DataFormat.TEXT: RowFormat(("text",), from_text, '{"text": "…"}', TrainOn.ALL, optional=()),
}
"""Every format, the more specific ones first."""

_WITH_TOOLS = frozenset(FORMATS) - {DataFormat.ALPACA, DataFormat.TEXT_LABEL, DataFormat.TEXT}
"""Formats whose rows may be conversations with tools."""

COLUMNS = {name: format.columns for name, format in FORMATS.items()}
"""The columns that each format needs, in the order of `FORMATS`."""

OPTIONAL_COLUMNS = ("input", "system", "reference")
"""Columns that some formats use if a row has them."""


def detect(row: dict[str, Any], formats: Collection[DataFormat] = tuple(COLUMNS)) -> DataFormat | None:
    """The format whose columns a row has, or None.

    If the columns of several formats are there, the first one of `FORMATS` that is in `formats` counts.

    - A column whose value is null counts as absent, since a table has every column in every row.
    - `prompt`, `completion` and a `label` that is true or false are UnpairedPreference, never PromptCompletion: the
      completion may be a bad one. Any other label, also 1 or 0, is an ordinary column, unless `formats` has
      UnpairedPreference and lacks PromptCompletion. In that case a null label counts as present, so that the row is
      reported as one that lacks its label.
    - `labels` count as `label` if TextLabel is one of `formats`.
    - `messages` that do not end with an answer are Prompt if that is one of `formats`.
    - A prompt alone is Prompt, and a text alone Text, only if that is one of `formats`; otherwise the column after it
      is missing. A text with a label is never Text.

    Args:
        row: the row as it is in the file.
        formats: the objective's formats; another format is returned only if a row has none of them.
    """
    present = {column for column, value in row.items() if value is not None}
    if DataFormat.TEXT_LABEL in formats and ALIAS in present:
        present.add("label")
    if DataFormat.PROMPT in formats and unanswered(row):
        return DataFormat.PROMPT
    if DataFormat.UNPAIRED_PREFERENCE in formats and rated_conversation(row):
        return DataFormat.UNPAIRED_PREFERENCE
    rates = DataFormat.UNPAIRED_PREFERENCE in formats and DataFormat.PROMPT_COMPLETION not in formats
    if rates and "label" in row and "completion" in present:
        present.add("label")
    rated = truth(row.get("label")) is not None
    fits = [format for format, columns in COLUMNS.items() if present.issuperset(columns)]
    for alone in (DataFormat.PROMPT, DataFormat.TEXT):
        if alone in fits and alone not in formats:
            fits.remove(alone)
    if DataFormat.TEXT in fits and DataFormat.TEXT_LABEL in fits:
        fits.remove(DataFormat.TEXT)
    if DataFormat.PROMPT_COMPLETION not in formats:
        rated = DataFormat.UNPAIRED_PREFERENCE in formats or rating(row.get("label")) is not None
    if DataFormat.UNPAIRED_PREFERENCE in fits:
        fits.remove(DataFormat.PROMPT_COMPLETION if rated else DataFormat.UNPAIRED_PREFERENCE)
    return next((format for format in fits if format in formats), fits[0] if fits else None)


def to_sample(row: dict[str, Any], format: DataFormat) -> Sample:
    """The row as a Sample.

    Raises:
        RowFault: a column is missing, of the wrong type or empty, or there is nothing to train on; or the row has
            something else that changes what it should teach.
    """
    used = used_columns(row, format)
    check_columns_beside(row, format, used)
    if format is DataFormat.UNPAIRED_PREFERENCE and (columns := rated_conversation(row)):
        row = with_prompt(row, columns)
    if format is DataFormat.PROMPT:
        row = as_prompt(row)
    if format is DataFormat.TEXT_LABEL and row.get("label") is None and ALIAS in row:
        row = {**row, "label": row[ALIAS]}
    for column in COLUMNS[format]:
        if column not in row:
            raise RowFault(f"no column `{column}`")
    lists = {name: unpacked(row[name], name) for name in TURNS if name in used and isinstance(row.get(name), str)}
    sample = FORMATS[format].parse({**row, **lists} if lists else row)
    tools = parse_tools(row) if format in _WITH_TOOLS else ()
    if tools and not sample.is_chat:
        raise RowFault("`tools` is set, but the prompt is a string: write it as a list of messages")
    return replace(sample, tools=tools) if tools else sample


def used_columns(row: dict[str, Any], format: DataFormat) -> tuple[str, ...]:
    """The columns of a row that are read."""
    before = columns_before(row) if format is DataFormat.PREFERENCE else ()
    tools = TOOL_COLUMNS if format in _WITH_TOOLS else ()
    if format is DataFormat.UNPAIRED_PREFERENCE and (columns := rated_conversation(row)):
        before = (*columns, *RATINGS)
    if format is DataFormat.TEXT_LABEL and row.get("label") is None:
        before = (ALIAS,)
    if format is DataFormat.PROMPT:
        before = (*(("messages",) if unanswered(row) else ()), *REFERENCES)
    return (*COLUMNS[format], *FORMATS[format].optional, *before, *tools)
