"""What the configs of mixtures of experts lack for some libraries."""

from typing import Any

_COUNTS = ("num_local_experts", "n_routed_experts", "moe_num_experts")
"""Other names of the number of experts, by families."""


def name_experts(config: Any) -> None:
    """Give a language model's config the number of experts also as `num_experts`, the only name that TRL's loss reads.

    It is not exported: an artifact has the config of the base model.
    """
    count = next((value for name in _COUNTS if type(value := getattr(config, name, None)) is int), None)
    if count is not None and getattr(config, "num_experts", None) is None:
        config.num_experts = count
