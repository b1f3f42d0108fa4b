"""Errors of API calls, as types: those that are retried, those that the user has to fix, and bugs."""

from typing import Any


class ApiError(Exception):
    """An error response of the API server, or no response.

    Attributes:
        status: HTTP status; 0 if there was no response.
        reason: the API server's one-word reason, such as `AlreadyExists`; may be empty.
        message: the API server's message.
        retry_after: seconds to wait, if the server sent a Retry-After header.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(ApiError):
    """404: the object, its namespace or its kind does not exist."""


class Conflict(ApiError):
    """409: it exists already, or it changed since it was read."""


class Refused(ApiError):
    """The API server refuses this permanently: the user must change something."""


class Forbidden(Refused):
    """403: not allowed by RBAC, a quota or an admission policy."""


class Invalid(Refused):
    """400 or 422: the object is not valid."""


class Transient(ApiError):
    """No response, 401, 408, 429 or 5xx: can be retried."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Transient,  # A token that was rotated is read again.
    403: Forbidden,
    404: NotFound,
    408: Transient,
    409: Conflict,
    422: Invalid,
    429: Transient,
}


def from_status(status: int, body: Any, retry_after: float | None = None) -> ApiError:
    """The typed error of an HTTP status.

    Args:
        status: the HTTP status, 400 or above.
        body: the response's body: a Kubernetes `Status` as a dict, or any text.
        retry_after: seconds of the Retry-After header.
    """
    known = body if isinstance(body, dict) else {}
    cls = _BY_STATUS.get(status, Transient if status >= 500 else ApiError)
    message = known.get("message") or (body if isinstance(body, str) else "") or f"HTTP {status}"
    return cls(status, str(known.get("reason") or ""), str(message), retry_after)
