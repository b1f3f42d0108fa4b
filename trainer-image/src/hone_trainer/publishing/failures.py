"""Why an artifact was not published: a reason for programs, with what to do for people."""

from hone.contract.exits import FailureClass, exit_code
from hone.contract.runconfig import Publication
from hone.contract.verdict import Verdict
from hone_trainer.protocol.errors import MAX_HINT, MAX_MESSAGE, BadInput, clip

URI, SECRET, STORE = "spec.output.uri", "spec.output.credentialsSecretRef", "spec.output.s3"
ADDRESSES = {
    "s3": (STORE, "s3.endpoints"),
    "hf": (URI, "huggingFace.endpoint"),
    "oci": (URI, "oci.registries"),
}
"""By the scheme of the URI: the field that names the destination's host, and the administrator's value for it."""
AGAIN = "then change spec.output.publishRequest to publish again"


class Refused(BadInput):
    """The destination refuses the copy, and another attempt with the same spec and Secret would meet the same.

    Args:
        reason: in one word, as the reason of the condition Published.
        field: the field to correct.
        message: what was refused.
        hint: what to do.
    """

    def __init__(self, reason: str, field: str, message: str, hint: str) -> None:
        super().__init__(field, message, hint)
        self.reason = reason

    def verdict(self) -> Verdict:
        """The verdict, with the reason."""
        return super().verdict().model_copy(update={"reason": self.reason})


class NotReached(RuntimeError):
    """The destination did not answer, failed by itself, or has no space: another attempt may succeed."""

    def __init__(self, message: str, reason: str = "Unreachable", hint: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint

    def verdict(self) -> Verdict:
        """The verdict, with the reason."""
        return Verdict(
            failure_class=FailureClass.CRASHED,
            reason=self.reason,
            message=clip(str(self), MAX_MESSAGE),
            hint=clip(self.hint, MAX_HINT) if self.hint else None,
            exit_code=exit_code(FailureClass.CRASHED),
        )


def private(copy: Publication, what: str) -> Refused:
    """The destination, or what it redirects to, is not at a public address."""
    field, value = ADDRESSES[copy.uri.partition("://")[0]]
    hint = f"Name another destination, or ask the administrator to list it in {value} of Hone's chart."
    return Refused("AddressRefused", field, f"{copy.uri}: {what}", hint)


def unauthenticated(copy: Publication, has_credentials: bool) -> Refused:
    """The destination does not know these credentials, or asks for some."""
    what = "does not accept the credentials" if has_credentials else "asks for credentials"
    remedy = "Correct the Secret" if has_credentials else "Set it to a Secret with credentials that may write there"
    return Refused("CredentialsRefused", SECRET, f"{copy.uri} {what}", f"{remedy}, {AGAIN}.")


def expired(copy: Publication) -> Refused:
    """The credentials were valid once."""
    message = f"the credentials for {copy.uri} have expired"
    return Refused("CredentialsExpired", SECRET, message, f"Put new ones into the Secret, {AGAIN}.")


def forbidden(copy: Publication) -> Refused:
    """The credentials are known, but do not allow this."""
    message = f"the credentials do not allow to write to {copy.uri}"
    return Refused("AccessDenied", SECRET, message, f"Grant them the right to write there, {AGAIN}.")


def missing(copy: Publication, what: str) -> Refused:
    """The bucket, organization or repository does not exist."""
    return Refused("NotFound", URI, f"{copy.uri}: {what}", "Correct the name, or create it first.")


def taken(copy: Publication, what: str) -> Refused:
    """There is something else, which must not be overwritten."""
    hint = f"Name another place, or remove what is there, {AGAIN}."
    return Refused("DestinationTaken", URI, f"{copy.uri} {what}", hint)


def full(copy: Publication) -> NotReached:
    """No space is left, or a quota is exhausted."""
    return NotReached(f"{copy.uri}: no space is left there", "DestinationFull", "Make room there, or raise its quota.")


def differs(copy: Publication, name: str) -> NotReached:
    """What arrived is not what was sent."""
    return NotReached(f"{copy.uri}: {name!a} arrived with other content than was sent", "DigestMismatch")
