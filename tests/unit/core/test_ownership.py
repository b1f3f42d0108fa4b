"""Taking and giving back ownership of an artifact's claim."""

from typing import Any

from hone.core.modeldeployment.server import Server
from hone.core.ownership import give_back, is_usable, take
from hone.core.settings import Settings
from tests.unit.core import make

SERVER = Server(make.modeldeployment(), Settings())
MINE = {"apiVersion": "hone.dev/v1alpha1", "kind": "ModelDeployment", "name": "bot", "uid": "mdep-uid"}


def claim(*owners: dict[str, Any]) -> dict[str, Any]:
    body = make.artifact_claim()
    body["metadata"]["ownerReferences"] += owners
    return body


def owners(apply: Any) -> list[dict[str, Any]]:
    return list(apply.body["metadata"].get("ownerReferences", []))


def test_taking_adds_a_reference_that_is_no_controller() -> None:
    applied = take(SERVER, claim())
    assert applied is not None and owners(applied) == [MINE]
    assert applied.body["metadata"]["uid"] == "claim-job-output", "a claim that is gone is not made again"


def test_what_is_owned_is_not_taken_twice() -> None:
    assert take(SERVER, claim(MINE)) is None


def test_each_deployment_has_a_field_manager_of_its_own() -> None:
    other = Server(make.modeldeployment(uid="other"), Settings())
    assert SERVER.field_manager != other.field_manager
    assert SERVER.field_manager.startswith("hone-mdep-")


def test_a_living_jobs_reference_is_given_back_as_it_stands() -> None:
    body = claim(MINE)
    assert owners(give_back(SERVER, body)) == [body["metadata"]["ownerReferences"][0]]


def test_a_deleted_jobs_reference_is_put_back_so_that_the_claim_is_collected() -> None:
    body = claim()
    body["metadata"]["ownerReferences"] = [MINE]
    (owner,) = owners(give_back(SERVER, body))
    assert (owner["kind"], owner["name"], owner["uid"]) == ("FineTuneJob", "job", "job-uid")


def test_what_is_not_owned_is_not_given_back() -> None:
    assert give_back(SERVER, claim()) is None
    assert give_back(SERVER, None) is None


def test_a_claim_that_is_going_is_not_usable() -> None:
    assert is_usable(claim())
    assert not is_usable(None)
    going = claim()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not is_usable(going)
