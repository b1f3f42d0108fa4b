"""Reads a page of a listing object by object: as a whole, large objects take several times their size in memory."""

import json
import re
from collections.abc import Callable
from typing import Any

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def read_page(text: str, take: Callable[[Any], Any]) -> Any:
    """What a JSON text says, in which each of the outer object's `items` is replaced by what `take` makes of it.

    Raises:
        ValueError: the text is not JSON.
    """
    start = _skip(text, 0)
    if text[start : start + 1] != "{":
        return json.loads(text)
    page: dict[str, Any] = {}
    position = _skip(text, start + 1)
    while text[position : position + 1] != "}":
        key, position = _DECODER.raw_decode(text, position)
        position = _skip(text, _expect(text, position, ":"))
        if key == "items" and text[position : position + 1] == "[":
            page[key], position = _items(text, position, take)
        else:
            page[key], position = _DECODER.raw_decode(text, position)
        position = _next(text, position, "}")
    return page


def _items(text: str, position: int, take: Callable[[Any], Any]) -> tuple[list[Any], int]:
    items = []
    position = _skip(text, position + 1)
    while text[position : position + 1] != "]":
        item, position = _DECODER.raw_decode(text, position)
        items.append(take(item))
        position = _next(text, position, "]")
    return items, position + 1


def _next(text: str, position: int, end: str) -> int:
    """Where the next element begins, or the end is."""
    position = _skip(text, position)
    return position if text[position : position + 1] == end else _skip(text, _expect(text, position, ","))


def _expect(text: str, position: int, what: str) -> int:
    position = _skip(text, position)
    if text[position : position + 1] != what:
        raise json.JSONDecodeError(f"expected {what!r}", text, position)
    return position + 1


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
