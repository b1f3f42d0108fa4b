"""Random keys in the Secrets that the operator creates: only here and in the API server, in no Plan and no log."""

import secrets

from hone.core.observed import Object

PREFIX = "hone-"
"""So that who finds a key in a file knows what it is for."""
BYTES = 32


def with_keys(body: Object) -> Object:
    """The object, and if it is a Secret, with a random key in place of each empty text."""
    if body["kind"] != "Secret":
        return body
    texts = {name: text or f"{PREFIX}{secrets.token_urlsafe(BYTES)}" for name, text in body["stringData"].items()}
    return {**body, "stringData": texts}
