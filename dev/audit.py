"""Requests to a temporary control plane, counted in its audit log by user, verb and resource."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

_STAGES = {"watch": "ResponseStarted"}
"""The stage at which a request of a verb counts; of all other verbs when it was answered."""


class Request(NamedTuple):
    """What is counted of a request."""

    user: str
    verb: str
    resource: str


def flags(folder: Path) -> list[str]:
    """The API server's flags for an audit log in a folder."""
    policy = folder / "audit-policy.json"
    content = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"]}
    policy.write_text(json.dumps({**content, "rules": [{"level": "Metadata"}]}))
    return [f"--audit-policy-file={policy}", f"--audit-log-path={folder / 'audit.log'}", "--audit-log-maxsize=100000"]


class AuditLog:
    """Counts the requests since it was made."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "audit.log"
        self._begin = self._file.stat().st_size

    def count(self) -> Counter[Request]:
        """All requests since then that were answered."""
        counted: Counter[Request] = Counter()
        with self._file.open("rb") as file:
            file.seek(self._begin)
            for line in file:
                event = json.loads(line) if line.endswith(b"\n") else {}
                verb = event.get("verb", "")
                if event.get("stage") == _STAGES.get(verb, "ResponseComplete"):
                    counted[Request(event["user"]["username"], verb, _resource(event.get("objectRef") or {}))] += 1
        return counted


def _resource(ref: dict[str, str]) -> str:
    return "/".join(ref[key] for key in ("resource", "subresource") if ref.get(key)) or "other"
