"""Random specs through the API server's CEL and through the Python half: same verdict, same fields, same words."""

import json
from urllib.error import HTTPError

import pytest
from pydantic import ValidationError

from dev.cluster.controlplane import ControlPlane
from hone.api import API_VERSION, finetunejob, modeldeployment
from hone.contract.base import Model
from hone.contract.rules import Refusal, refusals
from tests.random_specs import RULES, Resource, resources

KINDS: dict[str, tuple[str, type[Model]]] = {
    finetunejob.KIND: (finetunejob.PLURAL, finetunejob.FineTuneJob),
    modeldeployment.KIND: (modeldeployment.PLURAL, modeldeployment.ModelDeployment),
}
UNPROCESSABLE = 422
CUT_SHORT = "some validation rules were not checked"
"""What the API server says where it ran no rule, since the schema refused the object already."""


def by_cel(plane: ControlPlane, resource: Resource) -> tuple[bool, set[Refusal] | None]:
    """Whether the API server accepts the resource, and what rules refuse of it: None where it ran no rule."""
    plural, _ = KINDS[resource["kind"]]
    try:
        plane.api.call("POST", f"/apis/{API_VERSION}/namespaces/default/{plural}?dryRun=All", resource)
    except HTTPError as error:
        answer = json.loads(error.read())
        assert error.code == UNPROCESSABLE, answer
    else:
        return True, set()
    causes = answer["details"]["causes"]
    if any(CUT_SHORT in cause["message"] for cause in causes):
        return False, None
    return False, {
        Refusal(cause["field"], rule.message, rule.remedy)
        for cause in causes
        for rule in RULES[resource["kind"]]
        if cause["message"].endswith(f": {rule.text}")
    }


def by_python(resource: Resource) -> tuple[bool, set[Refusal]]:
    """Whether types and rules accept the resource, and what the rules refuse of it."""
    refused = set(refusals(RULES[resource["kind"]], resource))
    try:
        KINDS[resource["kind"]][1].from_dict(resource)
    except ValidationError:
        return False, refused
    return not refused, refused


def compare(plane: ControlPlane, seed: int, count: int) -> None:
    """Compare both halves on random resources."""
    accepted = ran = 0
    for resource in resources(seed, count):
        (accepts, cel), (accepts_too, python) = by_cel(plane, resource), by_python(resource)
        assert (accepts, cel) == (accepts_too, python if cel is not None else None), resource
        accepted += accepts
        ran += bool(cel)
    assert accepted > count / 10, "hardly any spec is right"
    assert ran > count / 10, "hardly any spec breaks a rule"


def test_some_random_specs_have_one_verdict(plane: ControlPlane) -> None:
    compare(plane, seed=0, count=300)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_random_specs_have_one_verdict(plane: ControlPlane, seed: int) -> None:
    compare(plane, seed, count=2500)
