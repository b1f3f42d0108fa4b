"""Who may ask a server, and how much: `spec.access` of a ModelDeployment."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.objects import LocalReference


class ClientAccess(StrEnum):
    """Whom a server answers."""

    KEY = "Key"
    """Requests with a key."""
    OPEN = "Open"
    """Everyone who can connect to it."""


class RequestLimits(Model):
    """How much a client may ask for."""

    requests_per_minute: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="Requests per minute of each key; with mode Open, of all clients together. Each server pod "
            "counts its own. Default: unlimited.",
        ),
    ] = None
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30, description="Maximum size of a request in bytes.")] = (
        4 << 20
    )
    body_seconds: Annotated[
        int, Field(ge=1, le=3600, description="Seconds within which all of a request must have arrived.")
    ] = 60


class Access(Model):
    """Whom the server answers."""

    mode: Annotated[
        ClientAccess,
        Field(
            description="Key: requests need the header 'Authorization: Bearer <key>'. Open: everyone who can connect "
            "to the server is answered."
        ),
    ] = ClientAccess.KEY
    api_key_secret_ref: Annotated[
        LocalReference | None,
        Field(
            description="Secret with the keys: each entry is a client's name and its key, of at least 16 characters. "
            "Entries may change at any time; servers read them again. Default: a Secret with one random key, named in "
            "status.access.secretName. Allowed only with mode Key."
        ),
    ] = None
    limits: Annotated[RequestLimits | None, Field(description="Limits of requests.")] = None


class AccessStatus(Model):
    """Whom the server answers."""

    mode: Annotated[ClientAccess, Field(description="Key or Open, as in spec.access.mode.")]
    secret_name: Annotated[str | None, Field(max_length=253, description="Secret with the keys of clients.")] = None
