"""What goes wrong outside of the phases, for both kinds: specs that the code rejects, names taken, writes refused."""

from pydantic import ValidationError

from hone.core.observed import Ref


def spec_fault(error: ValidationError) -> str:
    """The first fault of a spec as a sentence that names the field."""
    first = error.errors()[0]
    field = ".".join(["spec", *(str(part) for part in first["loc"])])
    return f"{field}: {first['msg']}; the CRD let it pass, so the operator may be older than the CRD"


def name_taken(ref: Ref) -> str:
    """What to say and do where someone else's object has a child's name."""
    return (
        f"{ref.kind} {ref.name!r} exists and is not this resource's; "
        "delete it if nobody needs it, or make this resource under another name"
    )


def refused(target: str, words: str) -> str:
    """What the API server said when it refused a write."""
    return f"the API server refused {target}: {words}"
