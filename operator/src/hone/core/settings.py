"""The operator's own settings: images, and how often to reconcile."""

from dataclasses import dataclass

from hone.core.allowlists import ANYTHING, AllowLists
from hone.core.network import NetworkPeers
from hone.core.prices import NO_PRICES, Prices


@dataclass(frozen=True)
class Settings:
    """The operator's configuration; the chart sets it by environment variables (`HONE_<FIELD IN CAPITALS>`).

    Attributes:
        trainer_image: image of prepare, trainer and finish pods.
        server_image: vLLM's image for GPUs.
        server_cpu_image: vLLM's image for `gpus: 0`.
        image_pull_policy: of all pods; empty: Kubernetes' default.
        network_policies: who may connect to the pods of users; None: they get no NetworkPolicies.
        hub_endpoint: URL of the Hugging Face Hub or of a mirror, also one inside the cluster; empty: the Hub's own.
        s3_endpoints: URLs of S3-compatible stores that runs may use whatever their addresses are.
        oci_registries: hosts, with their ports, of registries that runs may publish to whatever their addresses are.
        cache_claim: name of the claim on which jobs share downloads, in namespaces that have one; empty: none.
        cache_size_limit: quantity of what is kept on it for other jobs; empty: what it holds.
        allow_lists: what users may ask for in their pods.
        prices: what GPUs cost.
        progress_seconds: least seconds between two readings of a run's progress; the status is written if they differ.
        resync_seconds: mean seconds between two reconciles of a resource with nothing due.
    """

    trainer_image: str = "ghcr.io/hone-dev/hone-trainer:0.1.0"
    server_image: str = "vllm/vllm-openai:v0.31.0"
    server_cpu_image: str = "ghcr.io/hone-dev/hone-vllm-cpu:0.1.0"
    image_pull_policy: str = ""
    network_policies: NetworkPeers | None = None
    hub_endpoint: str = ""
    s3_endpoints: tuple[str, ...] = ()
    oci_registries: tuple[str, ...] = ()
    cache_claim: str = ""
    cache_size_limit: str = ""
    allow_lists: AllowLists = ANYTHING
    prices: Prices = NO_PRICES
    progress_seconds: float = 10.0
    resync_seconds: float = 1800.0
