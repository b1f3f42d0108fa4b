"""A verdict: why a rank, a pod or an attempt ended, as text for people and as a class for the operator."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import MAX_INT32, Model
from hone.contract.exits import FailureClass


class Verdict(Model):
    """Why a rank or a step ended, as written to its verdict file and to the pod's termination message."""

    failure_class: Annotated[FailureClass, Field(alias="class", description="The failure class.")]
    message: Annotated[str, Field(max_length=1024, description="What happened, in one or a few sentences.")]
    hint: Annotated[str | None, Field(max_length=512, description="What to do about it.")] = None
    reason: Annotated[
        str | None,
        Field(max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$", description="publish: what the destination refused."),
    ] = None
    rank: Annotated[int | None, Field(ge=0, le=MAX_INT32, description="Global rank that failed first.")] = None
    node: Annotated[int | None, Field(ge=0, le=MAX_INT32, description="Index of that rank's pod in the gang.")] = None
    exit_code: Annotated[
        int | None,
        Field(ge=-MAX_INT32, le=MAX_INT32, description="Exit code of that process; negative for a signal."),
    ] = None
    step: Annotated[int | None, Field(ge=0, le=MAX_INT32, description="Last optimizer step that was finished.")] = None
    final: Annotated[bool, Field(description="Whether a retry cannot help, even if the class allows one.")] = False
    time: Annotated[
        float | None, Field(description="When, in seconds since the epoch; orders the ranks' verdicts.")
    ] = None
