"""The resource that a decision is about: what both kinds read from its metadata."""

from dataclasses import dataclass

from hone.core import names
from hone.core.observed import Object

_SHORT = {"FineTuneJob": "ftj", "ModelDeployment": "mdep"}


@dataclass(frozen=True)
class Subject:
    """A resource of ours.

    Attributes:
        resource: the object as it was read.
    """

    resource: Object

    @property
    def namespace(self) -> str:
        """The resource's namespace."""
        return str(self.resource["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """The resource's name."""
        return str(self.resource["metadata"]["name"])

    @property
    def uid(self) -> str:
        """The resource's uid, which names of children hash."""
        return str(self.resource["metadata"]["uid"])

    @property
    def field_manager(self) -> str:
        """Who holds our owner reference on the claim of another resource's artifact."""
        return f"hone-{_SHORT[self.resource['kind']]}-{names.digest(self.uid, length=12)}"
