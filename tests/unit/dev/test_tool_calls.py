"""The run of tool calling: a deployment that the CRD allows, a server as the operator would start it, new requests."""

from pathlib import Path

from dev import tool_calls, vllm
from dev.data import calls
from hone.contract.results import ArtifactSummary
from tests.docs.support import problems


def test_the_deployment_is_one_that_users_may_have() -> None:
    assert problems(tool_calls.DEPLOYMENT) == []


def test_the_server_has_the_operators_arguments_with_paths_of_this_machine(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    summary = ArtifactSummary(digest="sha256:aa", size_bytes=1, kind="Model", api="Chat")
    arguments, environment = vllm.rendered(tool_calls.DEPLOYMENT, summary, artifact, tmp_path / "home")
    assert f"--model={artifact}" in arguments
    assert "--served-model-name=assistant" in arguments
    assert arguments[-3:] == tool_calls.DEPLOYMENT["spec"]["runtime"]["args"]
    assert not [flag for flag in arguments if "/mnt/" in flag]
    assert environment["HOME"] == str(tmp_path / "home")
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_requests_are_of_another_seed_and_all_end_in_a_call() -> None:
    trained = {row["messages"][0]["content"] for row in calls.rows(tool_calls.ROWS, tool_calls.SEED)}
    rows = tool_calls.requests(20)
    assert all(calls.call_of(row) for row in rows)
    new = [row for row in rows if row["messages"][0]["content"] not in trained]
    assert len(new) > len(rows) / 3, "weather and greetings repeat, numbers do not"
