"""What a job's status knows and its report does not: the gate, which decides after finish has ended."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hone.contract.base import Model


class RuleShown(Model):
    """What the scores show about a rule of the gate; as in `status.gate.rules`."""

    rule: str
    verdict: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    samples: int | None = None
    message: str = ""


class GateShown(Model):
    """What the gate decided; as in `status.gate`."""

    decision: str
    confidence: float
    message: str = ""
    rules: Annotated[list[RuleShown], Field(max_length=64)] = []


def load_gate(path: str, uid: str) -> GateShown | None:
    """The gate in the output of `kubectl get finetunejob NAME -o json`; None if the job has none, or no decision.

    Args:
        path: the file.
        uid: of the job that the report is of.

    Raises:
        ValueError: the file is not that, or is of another job; in words for the one who named it.
    """
    try:
        job = json.loads(Path(path).read_bytes())
        job_uid, gate = job["metadata"]["uid"], (job.get("status") or {}).get("gate") or {}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}. Name what kubectl get finetunejob NAME -o json wrote.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: is no job. Name what kubectl get finetunejob NAME -o json wrote.") from error
    if job_uid != uid:
        raise ValueError(f"{path}: is another job than that of the report, or one that was applied again.")
    return GateShown.from_dict(gate) if gate.get("decision") else None
