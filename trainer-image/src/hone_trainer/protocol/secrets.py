"""Values of variables that a step took from its environment, kept only so that no log and no result repeats them."""

import json
from collections.abc import Mapping

withheld: dict[str, str] = {}
"""By the variables' names."""


def take(values: Mapping[str, str]) -> None:
    """Leave these values out of what the process says from now on."""
    withheld.update(values)
    # As they are in lines of JSON.
    withheld.update({f"{name}#escaped": json.dumps(value, ensure_ascii=False)[1:-1] for name, value in values.items()})


def without(text: str, values: Mapping[str, str], least: int = 4) -> str:
    """The text with each of the values replaced by the name of its variable.

    Args:
        text: the text.
        values: values by the names of their variables.
        least: characters of the shortest value that is replaced. Shorter ones would be seen in words where they are
            not meant.
    """
    # Of equal values, the first one's name.
    names = {value: name for name, value in reversed(list(values.items())) if len(value) >= least}
    for value in sorted(names, key=len, reverse=True):
        text = text.replace(value, f"${names[value]}")
    return text
