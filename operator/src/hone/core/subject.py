"""The resource that a decision is about: what both kinds read from its metadata."""

from dataclasses import dataclass

from pydantic import ValidationError

from hone.contract.base import Model
from hone.core import names
from hone.core.observed import Object
from hone.core.settings import Settings

_SHORT = {"FineTuneJob": "ftj", "ModelDeployment": "mdep"}


@dataclass(frozen=True, eq=False)
class Subject:
    """A resource of ours. Compared by identity: what is derived from one is cached in it.

    Attributes:
        resource: the object as it was read.
        settings: the operator's.
    """

    resource: Object
    settings: Settings

    @property
    def spec(self) -> Model:
        """Its spec.

        Raises:
            pydantic.ValidationError: the CRD accepts the spec, but the types do not.
        """
        raise NotImplementedError

    @property
    def fault(self) -> ValidationError | None:
        """What is wrong with the spec, or None."""
        try:
            self.spec  # noqa: B018
        except ValidationError as error:
            return error
        return None

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
        """The field manager of our owner reference on the claim of another resource's artifact."""
        return f"hone-{_SHORT[self.resource['kind']]}-{names.digest(self.uid, length=12)}"
