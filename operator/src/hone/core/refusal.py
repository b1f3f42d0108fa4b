"""Messages of errors outside the phases, for both kinds: invalid specs, name conflicts, refused writes."""

from pydantic import ValidationError

from hone.contract.rules import Refusal
from hone.core.observed import Ref


def spec_fault(error: ValidationError) -> str:
    """The first error of a spec as a sentence that names the field."""
    first = error.errors()[0]
    field = ".".join(["spec", *(str(part) for part in first["loc"])])
    return f"{field}: {first['msg']}; the CRD accepts it, so upgrade the operator if it is older than the CRD"


def rule_broken(broken: Refusal) -> str:
    """The message for a rule that a spec breaks, as the API server words it."""
    return f"{broken.field} {broken.message}. {broken.remedy}"


def name_taken(ref: Ref) -> str:
    """The message for a child's name that an object of someone else already has."""
    return (
        f"{ref.kind} {ref.name!r} already exists and does not belong to this resource; "
        "delete it if it is not needed, or create this resource with another name"
    )


def refused(target: str, error: str) -> str:
    """The message for a write that the API server refused."""
    return f"the API server refused {target}: {error}"
