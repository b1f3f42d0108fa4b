"""Where a ModelDeployment's model is, on a real API server: what is refused, with its field, and what is stored."""

from typing import Any

import pytest

from hone.core.observed import Object
from hone.runtime.errors import Invalid
from tests.integration.support import Cluster, modeldeployment

DIGEST = "sha256:" + "0" * 64
IMAGE = {"reference": f"registry.example.com:5000/team/bot:v1@{DIGEST}"}
HUB, S3 = {"uri": "hf://acme/bot"}, {"uri": "s3://team/models/bot/v1"}
STORE = {"endpoint": "https://s3.example.com", "region": "eu-central-1", "pathStyle": False}
CREDENTIALS = {"credentialsSecretRef": {"name": "store"}}
JOB = {"jobRef": {"name": "support-bot"}}
PLACES = {"model": ("spec.model", lambda fields: fields), "base": ("spec.model.base", lambda fields: _based(fields))}
"""The two places of a model: where each is, and a model with it."""


def _based(fields: dict[str, Any]) -> dict[str, Any]:
    return {**S3, "base": fields}


def served(model: dict[str, Any]) -> Object:
    """A ModelDeployment of a model."""
    deployment = modeldeployment()
    deployment["spec"]["model"] = model
    return deployment


REFUSED_IN_BOTH: dict[str, tuple[dict[str, Any], str, str]] = {
    "two places": ({**HUB, "image": IMAGE}, "", "must have exactly one of"),
    "no place": ({}, "", "must have exactly one of"),
    "a file of any server": ({"uri": "https://example.com/model"}, ".uri", "should match"),
    "a data set": ({"uri": "hf://datasets/acme/rows"}, ".uri", "should match"),
    "no name": ({"uri": "hf://"}, ".uri", "should match"),
    "a revision of S3": ({**S3, "revision": "main"}, ".revision", "only with a uri that begins with hf://"),
    "a revision that leads out": ({**HUB, "revision": "../x y"}, ".revision", "should match"),
    "a store of the Hub": ({**HUB, "s3": STORE}, ".s3", "only with a uri that begins with s3://"),
    "a store without scheme": ({**S3, "s3": {"endpoint": "s3.example.com"}}, ".s3.endpoint", "should match"),
    "credentials of an image": ({"image": IMAGE, **CREDENTIALS}, ".credentialsSecretRef", "only with uri"),
    "an image by its tag": (
        {"image": {"reference": "registry.example.com/team/bot:v1"}},
        ".image.reference",
        "must end with @sha256:",
    ),
    "a path out of an image": ({"image": {**IMAGE, "path": "a/../.."}}, ".image.path", "must not contain '..'"),
}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    f"{name}: {case}": (make(fields), f"{place}{field}", words)
    for name, (place, make) in PLACES.items()
    for case, (fields, field, words) in REFUSED_IN_BOTH.items()
} | {
    "a job and a uri": ({**JOB, **HUB}, "spec.model", "must have exactly one of jobRef, uri and image"),
    "credentials of a job": ({**JOB, **CREDENTIALS}, "spec.model.credentialsSecretRef", "only with uri"),
    "a digest of a job's model": ({**JOB, "digest": DIGEST}, "spec.model.digest", "is not allowed with jobRef"),
    "a base of a job's model": ({**JOB, "base": HUB}, "spec.model.base", "is not allowed with jobRef"),
    "a digest that is none": ({**S3, "digest": "sha256:1"}, "spec.model.digest", "should match"),
    "a base on two claims": (
        _based({**HUB, "claim": {"name": "models", "path": "llama"}}),
        "spec.model.base",
        "must have exactly one of claim, uri and image",
    ),
    "a base outside of its claim": (
        _based({"claim": {"name": "models", "path": "../llama"}}),
        "spec.model.base.claim.path",
        "must not contain '..'",
    ),
    "a model on a claim": ({"claim": {"name": "models", "path": "bot"}}, "spec.model", "must have exactly one of"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_is_refused_with_the_field(cluster: Cluster, case: str) -> None:
    model, field, words = REFUSED[case]
    with pytest.raises(Invalid) as refusal:
        await cluster.create(served(model))
    assert f"{field}: " in refusal.value.message
    assert words in refusal.value.message


ACCEPTED: dict[str, dict[str, Any]] = {
    "the least of the Hub": HUB,
    "the least of S3": S3,
    "all of the Hub": {**HUB, "revision": "v1.0", "digest": DIGEST, **CREDENTIALS},
    "all of S3": {**S3, "s3": STORE, "digest": DIGEST, **CREDENTIALS},
    "an image": {"image": {**IMAGE, "path": "models/bot"}, "digest": DIGEST},
    "an adapter with its base on a claim": {**S3, "base": {"claim": {"name": "models", "path": "llama/8b"}}},
    "an adapter with its base on the Hub": {"image": IMAGE, "base": {**HUB, "revision": "main", **CREDENTIALS}},
    "an adapter with its base in S3": {**HUB, "base": {**S3, "s3": STORE}},
    "an adapter with its base in an image": {**S3, "base": {"image": IMAGE}},
}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_is_stored_as_written_without_defaults(cluster: Cluster, case: str) -> None:
    """Nothing is dropped, and no default is written into the model: what it is by default, the operator decides."""
    deployment = served(ACCEPTED[case])
    await cluster.create(deployment)
    stored = await cluster.get("ModelDeployment", deployment["metadata"]["name"])
    assert stored
    assert stored["spec"]["model"] == ACCEPTED[case]
