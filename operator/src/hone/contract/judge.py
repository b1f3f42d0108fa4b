"""A model that compares the answers of base and tuned model: where it is, and what it is asked."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.objects import LocalReference
from hone.contract.stores import PORT

JUDGE_KEY = "OPENAI_API_KEY"
"""The key of the Secret with the judge's API key, and the variable of the finish pod; OpenAI's own name for it."""
IN_CLUSTER = rf"https?://[^/:]+\.svc(\.cluster\.local)?(:{PORT})?(/.*)?"
"""A URL of a Service by its full name."""


class Judge(Model):
    """A model that compares the answers of base and tuned model to the same test rows, in both orders."""

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            pattern=rf"^https?://[A-Za-z0-9][-A-Za-z0-9.]*(:{PORT})?(/[-A-Za-z0-9._~/]*)?$",
            description="Base URL of an OpenAI-compatible API, such as https://judge.example.com/v1. Test rows and "
            "answers are sent there. It has a public address, or is a Service of the job's namespace by its full name: "
            "http://judge.team.svc:8000/v1.",
        ),
    ]
    model: Annotated[str, Field(min_length=1, max_length=253, description="Name of the model at that API.")]
    api_key_secret_ref: Annotated[
        LocalReference | None,
        Field(
            description=f"Secret whose key {JUDGE_KEY} is sent as bearer token. Only the finish pod gets it. Default: "
            "requests have no token."
        ),
    ] = None
    criteria: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=2048,
            description="What makes an answer better, in a sentence or two. Default: correctness first, then "
            "helpfulness; length does not count.",
        ),
    ] = None
    max_samples: Annotated[
        int,
        Field(ge=1, le=10_000, description="Maximum number of test rows that are judged, by two requests each."),
    ] = 200
