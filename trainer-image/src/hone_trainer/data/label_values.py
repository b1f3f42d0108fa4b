"""Labels as people write them: the class of a text, or all its classes, as a list, as JSON or as columns of 0 and 1."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from hone_trainer.protocol.errors import RowFault, clip

MAX_LABEL = 128
"""Most characters of a class's name."""
ALIAS = "labels"
"""Another name of the column `label`, which texts with several classes often have."""
SEPARATOR = ","
"""Between the names of columns that are one class each, in `dataset.columns`."""

Label = str | int | tuple[str | int, ...]
"""A class, or all classes of a text that may have several or none, each once and in order."""

_JSON_LIST = re.compile(r"\s*\[\s*(?:\]|[\"'0-9-])")
_QUOTED_LIST = re.compile(r"\s*\[\s*[\"']")
_YES_NO = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


def parse_label(value: Any) -> Label:
    """The class that a label names, or the classes of a list.

    Raises:
        RowFault: it names none.
    """
    value = _unpacked(value) if isinstance(value, str) else value
    if isinstance(value, dict):
        raise RowFault("`label` is an object: write the name of the class, or a list of names")
    if not isinstance(value, list):
        return _class(value)
    if any(isinstance(each, bool | list | dict) for each in value):
        raise RowFault("`label` is a list of something else than names: write the names of the text's classes")
    classes = [_class(each) for each in value]
    if len({*map(str, classes)}) < len(classes):
        raise RowFault(
            "`label` has a class twice: write each class of the text once; in place of a list of 0 and 1, write the "
            "names of the classes, or name one column for each class in spec.dataset.columns"
        )
    return tuple(sorted(classes, key=str))


def names_of(label: Label | None) -> tuple[str, ...]:
    """The names of the classes of a row."""
    if label is None:
        return ()
    return tuple(map(str, label)) if isinstance(label, tuple) else (str(label),)


def of_columns(row: dict[str, Any], names: Iterable[str]) -> list[str]:
    """The classes of a row that has a column of 0 and 1 for each.

    Raises:
        RowFault: a column has something else.
    """
    classes = []
    for name in names:
        chosen = _YES_NO.get(str(row.get(name)).strip().lower())
        if chosen is None:
            raise RowFault(f"`{clip(name, 40)}` is a class of spec.dataset.columns, but neither 0 nor 1 here")
        if chosen:
            classes.append(name)
    return classes


def columns_of(path: str) -> list[str]:
    """The columns of an entry of `dataset.columns` that names one for each class."""
    return [name.strip() for name in path.split(SEPARATOR)]


def _class(label: Any) -> str | int:
    """The class that a label names: booleans are the classes true and false, and pandas writes integers as 1.0."""
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and math.isfinite(label):
        label = int(label) if label.is_integer() else f"{label:g}"
    if not isinstance(label, str | int):
        raise RowFault("`label` is neither a string nor a number")
    if isinstance(label, str):
        label = label.strip()
    if label == "":
        raise RowFault("`label` is empty")
    if len(str(label)) > MAX_LABEL:
        raise RowFault(f"`label` has more than {MAX_LABEL} characters, too long for the name of a class")
    result: str | int = label
    return result


def _unpacked(text: str) -> Any:
    """The list that a text is the JSON of; any other text as it is."""
    if not _JSON_LIST.match(text) or not text.rstrip().endswith("]"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if not _QUOTED_LIST.match(text):
            return text  # a name, such as [1-10]
        raise RowFault("`label` is a list, but not as JSON: write it with json.dumps, or as JSON Lines") from error
