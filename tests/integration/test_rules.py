"""Random specs through the API server's CEL and through the Python half: same verdict, same fields, same words."""

import json
from typing import Any
from urllib.error import HTTPError

import pytest
from pydantic import ValidationError

from dev.cluster.controlplane import ControlPlane
from hone.api import API_VERSION, finetunejob, modeldeployment
from hone.contract.base import Model
from hone.contract.rules import refusals
from tests.random_specs import RULES, Resource, resources

KINDS: dict[str, tuple[str, type[Model]]] = {
    finetunejob.KIND: (finetunejob.PLURAL, finetunejob.FineTuneJob),
    modeldeployment.KIND: (modeldeployment.PLURAL, modeldeployment.ModelDeployment),
}
UNPROCESSABLE = 422
CUT_SHORT = "some validation rules were not checked"
"""What the API server says where it ran no rule, since the schema refused the object already."""

Refused = set[tuple[str, str]]


def by_cel(plane: ControlPlane, resource: Resource) -> tuple[bool, Refused | None]:
    """Whether the API server accepts the resource, and what rules refuse: None where it did not run them."""
    plural, _ = KINDS[resource["kind"]]
    path = f"/apis/{API_VERSION}/namespaces/default/{plural}?dryRun=All"
    try:
        plane.api.call("POST", path, resource)
    except HTTPError as error:
        answer = json.loads(error.read())
        assert error.code == UNPROCESSABLE, answer
        causes: list[dict[str, Any]] = answer["details"]["causes"]
    else:
        return True, set()
    if any(CUT_SHORT in cause["message"] for cause in causes):
        return False, None
    texts = {rule.text for rule in RULES[resource["kind"]]}
    words = [(cause["field"], text) for cause in causes for text in texts if cause["message"].endswith(f": {text}")]
    return False, set(words)


def by_python(resource: Resource) -> tuple[bool, Refused]:
    """Whether types and rules accept the resource, and what the rules refuse."""
    refused = {(field, f"{message}. {remedy}") for field, message, remedy in _refusals(resource)}
    try:
        KINDS[resource["kind"]][1].from_dict(resource)
    except ValidationError:
        return False, refused
    return not refused, refused


def _refusals(resource: Resource) -> list[tuple[str, str, str]]:
    return [tuple(refusal) for refusal in refusals(RULES[resource["kind"]], resource)]


def compare(plane: ControlPlane, seed: int, count: int) -> None:
    """Compare both halves on random resources."""
    accepted = ran = 0
    for resource in resources(seed, count):
        (accepts, refused), (accepts_too, refused_too) = by_cel(plane, resource), by_python(resource)
        assert accepts == accepts_too, f"{resource}\nCEL: {refused}\nPython: {refused_too}"
        assert refused is None or refused == refused_too, f"{resource}\nCEL: {refused}\nPython: {refused_too}"
        accepted += accepts
        ran += bool(refused)
    assert accepted > count / 10, "hardly any spec is right"
    assert ran > count / 10, "hardly any spec breaks a rule"


def test_some_random_specs_have_one_verdict(plane: ControlPlane) -> None:
    compare(plane, seed=0, count=300)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_random_specs_have_one_verdict(plane: ControlPlane, seed: int) -> None:
    compare(plane, seed, count=2500)
