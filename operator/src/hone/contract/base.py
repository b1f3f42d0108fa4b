"""The base of every type that crosses a process or the Kubernetes API: camelCase in JSON, snake_case in Python."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

MAX_INT32 = 2**31 - 1
"""Maximum of a count."""
MAX_BYTES = 2**53 - 1
"""Maximum of a number of bytes, parameters or tokens: the largest integer that every JSON reader takes exactly."""


class Model(BaseModel):
    """A value with camelCase keys in JSON. Unknown keys are ignored, so that a newer writer does not break a reader."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_dict(self) -> dict[str, Any]:
        """This value as JSON-ready camelCase keys, without the fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> str:
        """This value as compact JSON, without the fields that are None."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Build the value from camelCase keys.

        Raises:
            pydantic.ValidationError: naming each field that is missing or wrong.
        """
        return cls.model_validate(value)
