"""Prices of GPUs, as the administrator sets them in the chart's value `cost`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_CURRENCY = 16
DEFAULT = "default"
"""The entry for products that have none of their own."""


@dataclass(frozen=True)
class Prices:
    """What an hour of one GPU costs.

    Attributes:
        currency: of all prices, such as EUR.
        per_gpu_hour: by product, as the node label nvidia.com/gpu.product names it, by resource, or `default`.
    """

    currency: str = ""
    per_gpu_hour: Mapping[str, float] = field(default_factory=dict)

    def of(self, *names: str | None) -> float | None:
        """The price under the first of these names that has one, else the default one; None: there is none."""
        return next((self.per_gpu_hour[name] for name in (*names, DEFAULT) if name and name in self.per_gpu_hour), None)


NO_PRICES = Prices()
