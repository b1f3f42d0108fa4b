"""The whole way on local processes: from a model of the Hub and rows in S3 to an artifact in S3 that another serves.

What runs is rendered from manifests by the operator's own decisions; only the mounts are directories of the test. The
credentials are planted: no file, no message, no log and no object that is written on the way may have them.
"""

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hub_server
import pytest
import store_server
import tiny
from in_process import finished, train_here
from rows import chat_row
from store_server import BUCKET, Store

from hone.api.finetunejob_status import ArtifactStatus, FineTuneJobStatus
from hone.contract.results import StepResult
from hone.contract.runconfig import Attempt, RunConfig
from hone.contract.served import FETCH_ENV
from hone.core.downloads import SecretKey
from hone.core.finetunejob.resources import jobs
from hone.core.finetunejob.resources.runconfig import run_config
from hone.core.finetunejob.run import FINISH, TRAIN, Run
from hone.core.finetunejob.sources import sources
from hone.core.finetunejob.steps import STEPS
from hone.core.finetunejob.steps.publish import PUBLISH_STEP, publication
from hone.core.settings import Settings
from hone_trainer import fetch, publish
from hone_trainer.prepare import prepare
from hone_trainer.protocol import manifest
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster

pytestmark = [pytest.mark.train, pytest.mark.timeout(1200)]

SECRETS = {"AWS_ACCESS_KEY_ID": "AKPLANTED7431", "AWS_SECRET_ACCESS_KEY": "planted-secret-7431"}
CREDENTIALS = {"credentialsSecretRef": {"name": "store"}}


@pytest.fixture
def store() -> Iterator[Store]:
    """A store with the rows."""
    with store_server.serving() as served:
        served.put({"rows/train.jsonl": "".join(json.dumps(chat_row(i)) + "\n" for i in range(200)).encode()})
        yield served


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[hub_server.Hub]:
    """A Hub with the base model."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    with hub_server.serving(hub_server.Hub(commits={hub_server.COMMIT: files})) as served:
        yield served


def job(store: Store) -> dict[str, Any]:
    """The manifest of the job."""
    place = {"s3": {"endpoint": store.url}, **CREDENTIALS}
    return make.finetunejob(
        model={"uri": "hf://acme/tiny"},
        dataset={"train": {"uri": f"s3://{BUCKET}/rows/train.jsonl", **place}, "minSamples": 10},
        hyperparameters={"maxSteps": 3},
        evaluation={"maxSamples": 8, "maxNewTokens": 4},
        output={"uri": f"s3://{BUCKET}/models/support-v1", **place},
    )


def local(text: str, root: Path) -> str:
    """Rendered JSON with the mounts as directories below `root`."""
    return text.replace('"/mnt/', f'"{root}/mnt/')


def give(patch: pytest.MonkeyPatch, secrets: Mapping[str, SecretKey]) -> None:
    """What the kubelet does for a container with these variables."""
    for name, key in secrets.items():
        if key.key in SECRETS:
            patch.setenv(name, SECRETS[key.key])


def trained(run: Run, root: Path, patch: pytest.MonkeyPatch) -> StepResult:
    """All steps of the job, up to the copy in the store; returns publish's result."""
    root.mkdir()
    config = RunConfig.model_validate_json(local(run_config(run).to_json(), root))
    (root / "run.json").write_text(config.to_json())
    patch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
    patch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
    give(patch, {name: key for source in sources(run) for name, key in source.secrets.items()})
    prepare(config)
    train_here(root, patch)
    Path(config.paths.output).mkdir(parents=True, exist_ok=True)
    report = finished(config)
    status = FineTuneJobStatus(artifact=ArtifactStatus(**report.artifact.model_dump(), claim="output"))
    attempt = Attempt(number=1, publish=publication(run, status))
    patch.setenv("HONE_ATTEMPT", attempt.model_dump_json(by_alias=True, exclude_defaults=True))
    give(patch, PUBLISH_STEP.secrets(run))
    assert publish.main() == 0, (root / "term").read_text()
    return StepResult.model_validate_json((root / "term").read_text())


def ran(container: dict[str, Any], root: Path, patch: pytest.MonkeyPatch) -> StepResult:
    """One of the containers that read the published model, as the kubelet starts it."""
    for entry in container["env"]:
        if entry["name"] == FETCH_ENV:
            patch.setenv(FETCH_ENV, local(entry["value"], root))
        elif entry.get("valueFrom") and (value := SECRETS.get(entry["valueFrom"]["secretKeyRef"]["key"])):
            patch.setenv(entry["name"], value)
    patch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
    (root / "mnt" / "artifact").mkdir(parents=True, exist_ok=True)
    [task] = container["args"]
    assert fetch.run(task) == 0, (root / "term").read_text()
    return StepResult.model_validate_json((root / "term").read_text())


def deployment(cluster: FakeCluster) -> dict[str, Any]:
    """The pod of the server."""
    live = next(obj for ref, obj in cluster.objects.items() if ref.kind == "Deployment")
    return dict(live["spec"]["template"]["spec"])


def files_below(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file that was written."""
    for path in root.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_one_manifest_tunes_and_another_in_another_namespace_serves(
    store: Store,
    hub: hub_server.Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings(hub_endpoint=hub.url, s3_endpoints=(store.url,))
    run = Run(job(store), settings)
    with tiny.only_rank():
        result = trained(run, tmp_path / "training", monkeypatch)
    assert result.published is not None

    other = tmp_path / "serving"
    model = {"uri": f"s3://{BUCKET}/models/support-v1", "s3": {"endpoint": store.url}, **CREDENTIALS}
    resource = make.modeldeployment(model={**model, "digest": result.published.digest}, gpus=0)
    resource["metadata"]["namespace"] = "team-b"
    cluster = FakeCluster(resource, settings=settings)
    cluster.converge()
    seen = ran(cluster.job()["spec"]["template"]["spec"]["containers"][0], other / "inspect", monkeypatch)
    cluster.complete(seen)
    cluster.converge()
    assert cluster.status["resolved"]["artifact"]["base"] == "hf://acme/tiny"

    pod = deployment(cluster)
    ran(pod["initContainers"][0], other, monkeypatch)
    argument = next(each for each in pod["containers"][0]["args"] if each.startswith("--model="))
    served = Path(local(f'"{argument.removeprefix("--model=")}"', other).strip('"'))
    _answers_alike(served, tmp_path / "training" / "mnt" / "output" / "artifact")

    texts = {
        "the log": caplog.text,
        "the RunConfig": run_config(run).to_json(),
        "objects": json.dumps([cluster.written[ref] for ref in cluster.created]),
        "status and Events": json.dumps(cluster.status) + repr(cluster.events),
        "the copy": json.dumps([str(key) for key in store.sent]),
    }
    for value in SECRETS.values():
        assert not [name for name, text in texts.items() if value in text]
        assert not [path for path, content in files_below(tmp_path) if value.encode() in content]
    for step in (TRAIN, FINISH):
        rendered = jobs.job(run, STEPS[step], Attempt(number=1), "config")
        assert "secretKeyRef" not in json.dumps(rendered), f"{step} gets no credentials"
    assert "secretKeyRef" not in json.dumps(pod["containers"]), "nor does the server"


def _answers_alike(served: Path, artifact: Path) -> None:
    """The model that is served has every file of the job's, and says the same."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    there = {file.path: file.sha256 for file in manifest.list_files(served)}
    own = {file.path: file.sha256 for file in manifest.list_files(artifact) if file.path != "README.md"}
    assert {path: there.get(path) for path in own} == own
    tokenizer = AutoTokenizer.from_pretrained(served)
    ids = tokenizer.apply_chat_template(
        copy.deepcopy(chat_row(3)["messages"][:1]), add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    with torch.inference_mode():
        answers = [AutoModelForCausalLM.from_pretrained(path).eval()(ids).logits for path in (served, artifact)]
    assert torch.equal(*answers)
