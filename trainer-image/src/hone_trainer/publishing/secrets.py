"""What neither a log nor a verdict may repeat: libraries show headers, and parts of what they were given."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

_SHORTEST = 4
"""Characters of the shortest part that is left out: shorter ones are in many words."""
_OF_REGISTRIES = ("password", "auth", "identitytoken", "registrytoken")


def parts(secrets: Mapping[str, str]) -> dict[str, str]:
    """The values, each of their words, and the passwords in a configuration of docker, by a name for each.

    Args:
        secrets: variables.
    """
    named: dict[str, str] = {}
    for name, value in secrets.items():
        inner = list(_passwords(value)) or value.split()
        several = dict.fromkeys(part for part in (value, *inner) if len(part) >= _SHORTEST)
        named |= {f"{name}#{number}" if number else name: part for number, part in enumerate(several)}
    return named


def _passwords(value: str) -> Iterator[str]:
    try:
        entries: list[Any] = list(json.loads(value)["auths"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return
    for entry in (each for each in entries if isinstance(each, dict)):
        yield from (str(entry[key]) for key in _OF_REGISTRIES if key in entry)
        yield base64.b64encode(f"{entry.get('username')}:{entry.get('password')}".encode()).decode()
