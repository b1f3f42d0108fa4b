"""Numbers and texts as the page shows them: rows and names come from strangers, and none may hide or reorder text."""

import re

from hone.contract.results import Interval

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, those that change the direction of text, and invisible ones that no script needs."""
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def visible(text: str, limit: int = 0) -> str:
    """The text, with hidden characters as escapes such as `\\u202e`, cut to `limit` characters; 0: not cut."""
    if limit and len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def number(value: float) -> str:
    """A number with four significant digits, and thousands apart where it is whole."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−", 1) if value < 0 else f"{value:.4g}"


def signed(value: float) -> str:
    """The same of a difference, with its sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def interval(value: Interval) -> str:
    """A value with its interval."""
    return f"{number(value.value)} [{number(value.lower)}, {number(value.upper)}]"


def short(value: float) -> str:
    """A number in few characters, for axes: 1.2k, 3M, 2e-05."""
    for size, unit in _UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return "0" if value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time in its two largest units, such as 1 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {whole % 60} s"


def size(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1024
    return f"{count:.4g} TiB"
