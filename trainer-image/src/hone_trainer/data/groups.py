"""`evaluation.groupBy`: the group of a test row, as a column of the prepared test split."""

from collections.abc import Sequence
from typing import Any

from hone_trainer.data.read import ABSENT, at
from hone_trainer.data.sources import Source
from hone_trainer.protocol.errors import BadInput, clip

EVALUATION_GROUP = "evaluation_group"
"""The column with the group's name; "" for a row without one."""
FIELD = "spec.evaluation.groupBy"
MAX_NAME = 64


def group_of(row: dict[str, Any], source: Source) -> str:
    """The group of a row under Hone's names of columns; "" where the column has no text, number or boolean."""
    if source.group_by is None:
        return ""
    ours = {theirs: name for name, theirs in source.columns.items()}.get(source.group_by, source.group_by)
    value = at(row, ours)
    if value is ABSENT or value is None or isinstance(value, dict | list):
        return ""
    return clip(str(value).strip(), MAX_NAME)


def check_groups(groups: Sequence[str], group_by: str | None) -> None:
    """Refuse a column that no test row has.

    Raises:
        BadInput: no row has a group.
    """
    if group_by is not None and len(groups) and not any(groups):
        raise BadInput(
            FIELD,
            f"no test row has a text, number or boolean in the column `{clip(group_by, 40)}`",
            "Name a column of the test rows as they are written, or remove the field.",
        )
