"""What the pods of a server must know of a model that was published outside of the cluster."""

from hone.contract.base import Model
from hone.contract.runconfig import Download

FETCH_ENV = "HONE_FETCH"
"""Environment variable that holds a `Fetch` as JSON."""


class Fetch(Model):
    """A published model and, if it is an adapter, its base: where they are, and what they must be."""

    directory: str
    """Where the model is, or is written to."""
    artifact: Download | None = None
    """The model to download; None: it is mounted."""
    digest: str | None = None
    """Digest of its SHA256SUMS; None: any, whose digest is reported."""
    base_directory: str | None = None
    """Where the base of an adapter is, or is written to; None: the spec names none."""
    base: Download | None = None
    """The base to download; None: it is mounted, or there is none."""
    base_digest: str | None = None
    """Digest of the base that the adapter was trained on; None: not known yet."""
