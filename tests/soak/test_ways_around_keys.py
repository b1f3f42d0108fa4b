"""A real vLLM server behind the guard: ways around its key, its routes, its metrics, and how its speed is measured."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from dev import vllm
from dev.basemodel import cache
from hone.contract.results import ArtifactSummary
from hone_trainer.scores.questions import Endpoint, Question
from hone_trainer.scores.speed import measure
from tests import monitoring
from tests.integration.guards import Running, mount, parse, running
from tests.ways_around_keys import ALICE, BOB, CHAT, KEY, OLD, PROMPT, WAYS, answered, bearer, request

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

DEPLOYMENT = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "support", "namespace": "default", "uid": "0000"},
    "spec": {"model": {"jobRef": {"name": "support"}}, "gpus": 0, "runtime": {"args": ["--max-model-len=256"]}},
}
SECONDS_TO_ANSWER = 120
_ROUTE = re.compile(r"Route: (/\S*), Methods: (\S.*)")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[Running]:
    """vLLM with the arguments that the operator renders; the key of one of its two clients was another one before."""
    from hone.core.modeldeployment.resources import access

    model = cache.find()
    if model is None:
        pytest.fail("there is no base model yet: python3 -m dev.basemodel build")
    home = directory / "home"
    home.mkdir()
    summary = ArtifactSummary(digest="sha256:0", size_bytes=1, kind="Model", api="Chat")
    arguments, variables = vllm.rendered(DEPLOYMENT, summary, model, home)
    mount(directory / "keys", alice=OLD, small="short")
    flags = [*arguments, *access.arguments()]
    with running(directory, vllm_arguments=flags, environment=variables, body_seconds=5) as app:
        assert app.ask("/v1/models", OLD, "GET", b"")[0] == 200
        mount(directory / "keys", alice=ALICE, bob=BOB, small="short")
        deadline = monotonic() + SECONDS_TO_ANSWER
        while app.ask("/v1/models", OLD, "GET", b"")[0] != 401:
            assert monotonic() < deadline, "the old key still counts"
        yield app


def test_a_client_is_answered_by_the_model(server: Running) -> None:
    status, body = parse(server.send(request(CHAT, bearer(BOB), b"POST", PROMPT), seconds=SECONDS_TO_ANSWER))
    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("way", WAYS)
def test_no_way_around_the_key_is_answered(way: str, server: Running) -> None:
    assert not answered(server.send(WAYS[way], seconds=SECONDS_TO_ANSWER))


def test_no_route_of_vllm_is_answered_without_a_key(server: Running, directory: Path) -> None:
    routes = [(path, way) for path, ways in _ROUTE.findall((directory / "log").read_text()) for way in ways.split(", ")]
    assert len(routes) > 20
    for path, method in routes:
        if (path, method) == ("/health", "GET"):
            continue
        body = b"{}" if method == "POST" else b""
        answer = server.send(request(path.encode(), method=method.encode(), body=body), seconds=SECONDS_TO_ANSWER)
        assert answer.startswith(b"HTTP/1.1 401"), (path, method)


def test_metrics_and_documentation_are_not_answered_with_a_key(server: Running) -> None:
    for path in (b"/metrics", b"/openapi.json", b"/docs", b"/version", b"/load"):
        assert not answered(server.send(request(path, KEY), seconds=SECONDS_TO_ANSWER)), path


def test_every_metric_of_vllm_that_is_asked_for_exists(server: Running) -> None:
    status, body = server.side("/metrics")
    names = set(re.findall(r"^(vllm:\w+)", body.decode(), re.MULTILINE))
    assert status == 200
    queried = {name for name in monitoring.metrics() if name.startswith("vllm:")}
    assert len(queried) > 8
    assert queried <= names


def test_an_analysis_measures_its_speed(server: Running) -> None:
    questions = [Question([{"role": "user", "content": f"{number}+2="}], "") for number in range(12)]
    speed = measure(Endpoint(f"http://127.0.0.1:{server.port}", "support", "Chat", 8, ALICE), questions)
    assert speed is not None
    print(speed)
    assert (speed.requests, speed.concurrency) == (12, 4)
    assert 0 < speed.ttft_p50 <= speed.ttft_p95
    assert speed.tokens_per_second > 0
