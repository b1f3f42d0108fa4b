"""Values of variables that a step took from its environment, kept only so that no log and no result repeats them."""

from collections.abc import Mapping

LEAST_CHARACTERS = 8
"""Of a value that is left out. Shorter ones would be seen in words where they are not meant."""
withheld: dict[str, str] = {}
"""By the variables' names."""


def take(values: Mapping[str, str]) -> None:
    """Leave these values out of what the process says from now on."""
    withheld.update(values)


def without(text: str, values: Mapping[str, str]) -> str:
    """The text with each of the values replaced by the name of its variable.

    Args:
        text: the text.
        values: values by the names of their variables.
    """
    names = {value: name for name, value in values.items() if len(value) >= LEAST_CHARACTERS}
    for value in sorted(names, key=len, reverse=True):
        text = text.replace(value, f"${names[value]}")
    return text
