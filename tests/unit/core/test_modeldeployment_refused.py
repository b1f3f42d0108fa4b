"""A ModelDeployment that breaks a rule, as one that is older than the rule may."""

import copy

import pytest

from hone.api.meta import EnvVar
from hone.core.observed import Object
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.test_modeldeployment_lifecycle import DIGEST, served

BROKEN: dict[str, tuple[Object, str]] = {
    "an argument": (
        {"args": ["--seed=1", "--trust-remote-code"]},
        "spec.runtime.args[1] is not an argument that may be added: it sets what Hone sets, is abbreviated, or may run "
        "code, open files or admit others. Remove it, or write one of the arguments in docs/serving.md in full, as "
        "--name=value.",
    ),
    "a variable": (
        {"env": [EnvVar(name="VLLM_SERVER_DEV_MODE", value="1").to_dict()]},
        "spec.runtime.env[0].name is a variable by which vLLM may run code, open files or admit others. Remove it.",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_no_server_is_made(case: str) -> None:
    runtime, message = BROKEN[case]
    cluster = FakeCluster(make.modeldeployment(runtime=runtime))
    cluster.add(make.claim("base-models"), make.complete_job(DIGEST), make.artifact_claim()).converge()
    assert cluster.created == []
    assert cluster.condition("Stalled") == ("True", "InvalidSpec")
    assert cluster.message("Stalled") == message
    cluster.edit(runtime={"args": ["--seed=1"]}).converge()
    assert [ref.kind for ref in cluster.objects if ref.kind == "Deployment"] == ["Deployment"]


@pytest.mark.parametrize("case", BROKEN)
def test_a_server_that_runs_stays(case: str) -> None:
    running = served()
    before = copy.deepcopy(running.objects)
    running.edit(runtime=BROKEN[case][0]).converge()
    assert running.objects == before
    assert running.condition("Stalled") == ("True", "InvalidSpec") and running.status["phase"] == "Available"
