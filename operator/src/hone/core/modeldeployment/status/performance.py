"""How fast the revision is that is served, and what its tokens cost."""

from typing import Any

from hone.api.rollout import ServerPerformance
from hone.contract.analysis import Performance
from hone.core.modeldeployment.server import Server
from hone.core.modeldeployment.snapshot import Snapshot

PRODUCT_LABEL = "nvidia.com/gpu.product"
"""Label of nodes by which a spec may choose the GPU, and by which prices are set."""
TOKENS = 1_000_000
SECONDS_PER_HOUR = 3600


def performance(snapshot: Snapshot) -> ServerPerformance | None:
    """What the analysis measured of the revision before it was served; None: it had none."""
    stable, last, old = snapshot.stable, snapshot.old.analysis, snapshot.old.performance
    if stable is None:
        return None
    measured: Performance | None = last.result.performance if last and last.result else None
    if measured is None or last is None or last.revision != stable.revision:
        measured = old if old and old.revision == stable.revision else None
    if measured is None:
        return None
    figures = measured.model_dump(include=set(Performance.model_fields))
    cost = _cost(snapshot.server, measured.tokens_per_second)
    return ServerPerformance(revision=stable.revision, **figures, **cost)


def _cost(server: Server, tokens_per_second: float) -> dict[str, Any]:
    """The cost of a million tokens and its currency; nothing without GPUs or a price."""
    prices, spec = server.settings.prices, server.spec
    selector = (spec.pod.node_selector if spec.pod else None) or {}
    hourly = prices.of(selector.get(PRODUCT_LABEL), spec.gpu_resource)
    if hourly is None or not spec.gpus or not tokens_per_second:
        return {}
    cost = hourly * spec.gpus / SECONDS_PER_HOUR / tokens_per_second * TOKENS
    return {"cost_per_million_tokens": float(f"{cost:.4g}"), "currency": prices.currency}
