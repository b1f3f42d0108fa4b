"""How an S3-compatible object store is reached, in specs and in the RunConfig; and the keys of a Secret for one."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""The keys of a Secret with credentials; the names of AWS's own libraries."""
S3_OPTIONAL_KEYS = ("AWS_SESSION_TOKEN",)
"""Those that only temporary credentials have."""
PORT = "([0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
"""A port in a URL, up to 65535."""
DEFAULT_REGION = "us-east-1"


class S3Store(Model):
    """Where an S3-compatible object store is, and how it is addressed. Amazon S3 needs none of these fields."""

    endpoint: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=512,
            pattern=rf"^https?://[A-Za-z0-9][-A-Za-z0-9.]*(:{PORT})?/?$",
            description="URL of the store, such as https://s3.example.com. An address that is not public, and http://, "
            "must be allowed by the administrator (s3.endpoints in Hone's chart). Default: Amazon S3.",
        ),
    ] = None
    region: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[a-z0-9][-a-z0-9]*$",
            description=f"Region of the bucket. Default: {DEFAULT_REGION}.",
        ),
    ] = None
    path_style: Annotated[
        bool | None,
        Field(
            description="Whether the bucket is in the path of URLs, not in the host name. Default: true with endpoint, "
            "which most stores other than Amazon S3 need."
        ),
    ] = None

    @property
    def is_path_style(self) -> bool:
        """Whether the bucket is in the path of URLs."""
        return self.endpoint is not None if self.path_style is None else self.path_style
