"""Kubernetes quantities as numbers."""

import re
from decimal import Decimal

_UNITS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
_PATTERN = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|[kMGTPE]|[KMGTPE]i)?$")


def as_int(quantity: str) -> int:
    """`quantity`, such as `20Gi`, as a whole number, rounded down.

    Raises:
        ValueError: it is not a quantity.
    """
    match = _PATTERN.match(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    return int(Decimal(match[1]) * _UNITS[match[2] or ""])
