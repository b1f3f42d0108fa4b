"""Random keys: in Secrets alone, another one each time, and never in the Plan."""

from unittest.mock import AsyncMock

import pytest

from hone.core.plan import Plan
from hone.guard.access import MIN_KEY
from hone.runtime.errors import Conflict
from hone.runtime.execute import execute
from hone.runtime.generated_keys import with_keys
from tests.unit.core import make

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-keys"}, "stringData": {"default": "", "b": "c"}}


def test_each_secret_has_a_key_of_its_own_that_cannot_be_guessed() -> None:
    keys = {with_keys(SECRET)["stringData"]["default"] for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43 > MIN_KEY
    assert with_keys(SECRET)["stringData"]["b"] == "c"
    assert SECRET["stringData"] == {"default": "", "b": "c"}


def test_other_objects_are_as_they_are() -> None:
    config = {**SECRET, "kind": "ConfigMap"}
    assert with_keys(config) is config


async def test_a_secret_that_exists_stays_and_another_object_that_exists_means_to_read_again() -> None:
    client, recorder = AsyncMock(), AsyncMock()
    client.create.side_effect = Conflict(409, "AlreadyExists", "exists")
    resource = make.modeldeployment()
    await execute(client, recorder, resource, Plan(create=(SECRET,)))
    ((_, sent),) = [call.args for call in client.create.await_args_list]
    assert sent["stringData"]["default"] != ""
    with pytest.raises(Conflict):
        await execute(client, recorder, resource, Plan(create=({**SECRET, "kind": "ConfigMap"},)))
